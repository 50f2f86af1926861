"""The page of a report: one HTML file that needs nothing else, and no network."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from lensjax.data.images import CLASSES, DISPLAY_NAMES
from lensjax.prediction.table_files import printable
from lensjax.report import html
from lensjax.report.page_style import STYLE
from lensjax.report.panels import Panel
from lensjax.report.published import PUBLISHED, comparability, is_simulated
from lensjax.report.run_facts import Facts

# Nothing is to be fetched from anywhere, whatever the page holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MODELS = {
    "baseline_cnn": "ResNet on the image",
    "lens_vit_pinn": "transformer, lens equation on brightness, ResNet",
    "lens_fit_net": "lens fit and ResNet",
    "lens_encoder_net": "lens encoder, renderer and ResNet",
}


def page(
    metrics: Mapping[str, Any],
    facts: Facts,
    figures: Mapping[str, Figure],
    panels: Sequence[Panel],
) -> str:
    """The whole page.

    Args:
      metrics: what metrics.json holds.
      facts: how the run was made.
      figures: the plots by name: "auc", "roc", "roc_log", "reliability" and, if any, "learning_curves".
      panels: rows of small pictures, in the order of the page.
    """
    sections = {
        "published": ("Beside the published figures", _published(metrics, facts, figures["auc"])),
        "figures": ("All figures of merit", _merit(metrics)),
        "roc": ("ROC curves", _curves(figures)),
        "confusion": ("Confusion matrix", _confusion(metrics)),
        "calibration": ("Calibration", _reliability(metrics, figures)),
    }
    if "learning_curves" in figures:
        sections["learning"] = ("Learning curves", _learning(metrics, figures))
    for panel in panels:
        sections[panel.name] = (panel.title, f"<p>{escape(panel.text)}</p>" + html.panel(panel))
    sections["made"] = ("How it was made", _made(facts))
    links = "".join(
        f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in sections.items()
    )
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{content}'
        "</section>"
        for key, (title, content) in sections.items()
    )
    name = escape(printable(facts.name))
    return html.as_ascii(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}: lensjax report</title><style>{STYLE}</style></head><body>"
        f"{_header(metrics, facts, name)}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main>'
        f"<footer>Made by lensjax {escape(facts.versions['lensjax'])} on {facts.date}. This file holds all "
        "that it shows; the same figures for a paper, as PNG and PDF, lie beside it in figures/, the numbers "
        "in metrics.json.</footer></body></html>\n"
    )


def _header(metrics: Mapping[str, Any], facts: Facts, name: str) -> str:
    total = sum(metrics["images"].values())
    model = facts.config.model.name
    epoch = (
        f"best epoch {metrics['best_epoch']} of {metrics['epochs']}"
        if metrics["epochs"]
        else "as it was given, not trained here"
    )
    views = ", mean over eight views" if facts.tta == "d4" else ""
    after = metrics["calibration"]
    scaled = "" if after is None else f"; {after['ece_after']:.4f} with the temperature"
    tiles = [
        ("mean AUC", _value(metrics, "auc"), _range(metrics, "auc")),
        ("accuracy", f"{100 * metrics['accuracy']:.2f} %", _range(metrics, "accuracy", 100)),
        ("calibration error", _value(metrics, "ece"), _range(metrics, "ece") + scaled),
        (f"{facts.split} images", f"{total:,}", epoch + views),
    ]
    keys = "".join(
        f'<div><dt>{title}</dt><dd class="value">{value}</dd><dd class="more">{more}</dd></div>'
        for title, value, more in tiles
    )
    return (
        f'<header><p class="over">lensjax report: dark-matter substructure in strong gravitational lenses</p>'
        f'<h1>{name}</h1><p class="lead">{escape(model)} ({_MODELS.get(model, "")}), on the {facts.split} '
        f"images of {escape(printable(str(facts.config.data.source)))}. In brackets 95 % intervals of "
        f'{metrics["bootstrap"]["resamples"]:,} bootstrap resamples.</p><dl class="key">{keys}</dl></header>'
    )


def _value(metrics: Mapping[str, Any], name: str) -> str:
    return f"{metrics[name]:.4f}"


def _range(metrics: Mapping[str, Any], name: str, scale: float = 1) -> str:
    low, high = (scale * end for end in metrics["intervals"][name])
    digits = 4 if scale == 1 else 2
    return f"({low:.{digits}f} to {high:.{digits}f})"


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    return f'{_value(metrics, name)}<span class="range">{_range(metrics, name)}</span>'


def _published(metrics: Mapping[str, Any], facts: Facts, drawing: Figure) -> str:
    data = facts.config.data
    trained = "simulated" if is_simulated(facts.config) else "see below"
    number = f"{data.num_train:,} {trained}" if is_simulated(facts.config) else trained
    here = [_cell(metrics, name) for name in ("auc", *(f"auc_{label}" for label in CLASSES))]
    total = f"{sum(metrics['images'].values()):,} {facts.split}"
    rows = [["this run", *here, number if metrics["epochs"] else "none here", total]]
    rows += [
        [
            f"{model.name}, published",
            *(f"{auc:.4f}" for auc in (model.auc, *model.aucs)),
            *("30,000 of the Common Test", "7,500 validation"),
        ]
        for model in PUBLISHED
    ]
    head = ["model", "mean AUC", *DISPLAY_NAMES, "trained on", "measured on"]
    told = table_of(rows, head)
    values = ", ".join(f"{name} {metrics[f'auc_{name}']:.4f}" for name in CLASSES)
    picture = html.figure(
        drawing,
        f"AUC of this run with intervals beside the published ones: {values}, mean {metrics['auc']:.4f}",
        "This run with its 95 % intervals; squares and diamonds are the published figures.",
    )
    return f"<p>{escape(comparability(facts.config, facts.split))}</p>{told}{picture}"


def table_of(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """The table beside the published figures, this run's row set off."""
    text = html.table("One-vs-rest AUC, this run's with 95 % intervals", head, rows)
    return text.replace("<tbody><tr>", '<tbody><tr class="here">', 1)


def _merit(metrics: Mapping[str, Any]) -> str:
    rows = [
        [title, f"{metrics['images'][name]:,}"]
        + [_cell(metrics, f"{kind}_{name}") for kind in ("auc", "f1")]
        for name, title in zip(CLASSES, DISPLAY_NAMES, strict=True)
    ]
    total = f"{sum(metrics['images'].values()):,}"
    rows += [["mean", total, _cell(metrics, "auc"), _cell(metrics, "f1")]]
    classes = html.table("By class", ["class", "images", "AUC", "F1"], rows)
    others = {
        "accuracy": ("accuracy", "share of right calls"),
        "balanced_accuracy": ("balanced accuracy", "mean of the classes' shares"),
        "brier": ("Brier score", "squared distance from the truth, 0 to 2"),
        "nll": ("log loss", "nats an image"),
        "ece": ("calibration error", f"in {metrics['ece_bins']} bins"),
    }
    whole = html.table(
        "Over all classes",
        ["figure", "value", "what it is"],
        [[title, _cell(metrics, name), what] for name, (title, what) in others.items()],
    )
    return f'<div class="pair">{classes}{whole}</div>'


def _curves(figures: Mapping[str, Figure]) -> str:
    plain = html.figure(
        figures["roc"],
        "ROC curves of the three classes, each against the rest",
        "Each class against the two others.",
    )
    log = html.figure(
        figures["roc_log"],
        "The same ROC curves with a logarithmic axis of false positives",
        "The same where false alarms are rare, as in a survey: a search among many lenses works on the left.",
    )
    return f'<div class="pair">{plain}{log}</div>'


def _confusion(metrics: Mapping[str, Any]) -> str:
    rows = []
    for title, counts in zip(DISPLAY_NAMES, metrics["confusion_matrix"], strict=True):
        cells = [f"true: {title}"]
        for count in counts:
            share = count / max(sum(counts), 1)
            full = ' class="full"' if share > 0.8 else ""
            cells.append(
                f'<td{full} style="--share:{0.06 + 0.92 * share:.3f}">{100 * share:.1f} %'
                f"<small>{count:,}</small></td>"
            )
        rows.append(cells)
    text = html.table(
        "Share of each true class that was given each class, and the number of images",
        ["", *(f"called {title}" for title in DISPLAY_NAMES)],
        rows,
        kind="confusion",
    )
    return text.replace("<td><td", "<td").replace("</td></td>", "</td>")


def _reliability(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    after = metrics["calibration"]
    told = (
        "Of the images that are called with a probability of 0.9, nine in ten should be called rightly: on "
        "the dashed line they are. "
    )
    if after is None:
        told += "No temperature was fitted for these answers."
        shown = ""
    else:
        told += (
            f"One temperature, {after['temperature']:.3f}, fitted to the validation images, divides the "
            "logits; it changes no call, and hardly an AUC."
        )
        names = {"ece": "calibration error", "brier": "Brier score", "nll": "log loss"}
        shown = html.table(
            "Calibration before and after",
            ["figure", "as trained", "with the temperature"],
            [
                [title, f"{after[f'{name}_before']:.4f}", f"{after[f'{name}_after']:.4f}"]
                for name, title in names.items()
            ],
        )
    picture = html.figure(
        figures["reliability"],
        "Reliability diagram: share of right calls by the probability of the called class",
        "Bars are Wilson's 95 % intervals of the shares; below, how many images each bin has.",
    )
    return f'<p>{told}</p><div class="pair">{picture}{shown}</div>'


def _learning(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    epochs, best = metrics["epochs"], metrics["best_epoch"]
    loss = html.figure(
        figures["loss"],
        f"Training and validation loss over {epochs} epochs",
        "Training loss is of augmented images and of parameters that change during the epoch.",
    )
    auc = html.figure(
        figures["learning_curves"],
        f"Validation AUC of the classes and their mean over {epochs} epochs; epoch {best} is the best",
        f"The band is epoch {best}, the best by mean validation AUC; this report is of it.",
    )
    return f'<div class="pair">{loss}{auc}</div>'


def _made(facts: Facts) -> str:
    def code(text: str) -> str:
        return f"<pre><code>{escape(printable(text))}</code></pre>"

    typed = ""
    if facts.typed not in (None, facts.again):
        typed = f"<p>Made by</p>{code(str(facts.typed))}"
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    settings = html.table(
        "Settings of the run that are not the defaults",
        ["field", "value"],
        [
            [f"config.{escape(name)}", escape(printable(value))]
            for name, value in facts.settings.items()
        ],
        kind="settings",
    )
    config = facts.config.to_json(indent=2, sort_keys=False)
    return (
        f"<p>Seed {facts.config.seed}, images' seed {facts.config.data.seed}. Computed on "
        f"{escape(facts.device)}, {escape(versions)}.</p>{typed}<p>To make this report again</p>"
        f"{code(facts.again)}{settings}<details><summary>The whole config</summary>{code(config)}</details>"
    )
