"""The HTML page of a report: a single file that needs no other files and no network access."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from lensjax.data.images import CLASSES, DISPLAY_NAMES
from lensjax.prediction.table_files import to_valid_utf8
from lensjax.report import html
from lensjax.report.html import Cell
from lensjax.report.panels import Panel
from lensjax.report.provenance import Provenance
from lensjax.report.published import PUBLISHED, comparability_note, training_images

_MODELS = {
    "baseline_cnn": "ResNet on the image",
    "lens_vit_pinn": "transformer, lens equation on brightness, ResNet",
    "lens_fit_net": "lens fit and ResNet",
    "lens_encoder_net": "lens encoder, renderer and ResNet",
}


def render_page(
    metrics: Mapping[str, Any], provenance: Provenance, figures: Mapping[str, Figure], panels: Sequence[Panel]
) -> str:
    """Renders the page as HTML.

    Args:
      metrics: content of metrics.json.
      provenance: settings, versions and command of the report.
      figures: plots by name: "auc", "roc", "roc_log", "reliability" and, if there is a history, "loss" and
        "learning_curves".
      panels: panels of small pictures, in page order.
    """
    sections = {
        "published": ("Comparison with published results", _published(metrics, provenance, figures["auc"])),
        "figures": ("All scores", _scores(metrics)),
        "roc": ("ROC curves", _curves(figures)),
        "confusion": ("Confusion matrix", _confusion(metrics)),
        "calibration": ("Calibration", _reliability(metrics, figures)),
    }
    if "learning_curves" in figures:
        sections["learning"] = ("Learning curves", _learning(metrics, figures))
    for panel in panels:
        text = f"<p>{escape(panel.text)}</p>"
        sections[panel.name] = (panel.title, text + html.render_panel(panel))
    sections["made"] = ("Reproducibility", _reproducibility(provenance))
    name = escape(to_valid_utf8(provenance.name))
    version = escape(provenance.versions["lensjax"])
    footer = (
        f"Made with lensjax {version} on {provenance.date}. This file is self-contained. The figures are "
        "also in figures/ as PNG and PDF, and the numbers in metrics.json."
    )
    return html.render_document(
        f"{name}: lensjax report", _header(metrics, provenance, name), sections, footer
    )


def _header(metrics: Mapping[str, Any], provenance: Provenance, name: str) -> str:
    total = sum(metrics["images"].values())
    model = provenance.config.model.name
    epoch = (
        f"best epoch {metrics['best_epoch']} of {metrics['epochs']}"
        if metrics["epochs"]
        else "weights as loaded, not trained here"
    )
    views = ", mean over eight views" if provenance.tta == "d4" else ""
    after = metrics["calibration"]
    scaled = "" if after is None else f"; {after['ece_after']:.4f} calibrated"
    outside = metrics["outside_domain"]
    unlike = "" if outside is None else f"; {outside:,} outside the classifier's domain"
    tiles = [
        ("mean AUC", _value(metrics, "auc"), _range(metrics, "auc")),
        ("accuracy", f"{100 * metrics['accuracy']:.2f} %", _range(metrics, "accuracy", 100)),
        ("calibration error", _value(metrics, "ece"), _range(metrics, "ece") + scaled),
        (f"{provenance.split} images", f"{total:,}", epoch + views + unlike),
    ]
    source = escape(to_valid_utf8(str(provenance.config.data.source)))
    resamples = metrics["bootstrap"]["resamples"]
    lead = (
        f"{escape(model)} ({_MODELS.get(model, '')}), evaluated on the {provenance.split} images of "
        f"{source}. 95 % intervals from {resamples:,} bootstrap resamples in parentheses."
    )
    over = "lensjax report: dark-matter substructure in strong gravitational lenses"
    return html.render_header(over, name, tiles, lead)


def _value(metrics: Mapping[str, Any], name: str) -> str:
    return f"{metrics[name]:.4f}"


def _range(metrics: Mapping[str, Any], name: str, scale: float = 1) -> str:
    low, high = (scale * end for end in metrics["intervals"][name])
    digits = 4 if scale == 1 else 2
    return f"({low:.{digits}f} to {high:.{digits}f})"


def _value_with_range(metrics: Mapping[str, Any], name: str) -> str:
    return f'{_value(metrics, name)}<span class="range">{_range(metrics, name)}</span>'


def _published(metrics: Mapping[str, Any], provenance: Provenance, figure: Figure) -> str:
    trained_on = training_images(provenance.config)
    names = ("auc", *(f"auc_{label}" for label in CLASSES))
    aucs = [_value_with_range(metrics, name) for name in names]
    total = f"{sum(metrics['images'].values()):,} {provenance.split}"
    rows = [["this run", *aucs, trained_on if metrics["epochs"] else "not trained here", total]]
    rows += [
        [
            f"{model.name}, published",
            *(f"{auc:.4f}" for auc in (model.auc, *model.aucs)),
            *("30,000 Common Test", "7,500 validation"),
        ]
        for model in PUBLISHED
    ]
    table = html.render_table(
        "One-vs-rest AUC, with 95 % intervals for this run",
        ["model", "mean AUC", *DISPLAY_NAMES, "trained on", "evaluated on"],
        rows,
        highlighted_row=0,
    )
    values = ", ".join(f"{name} {metrics[f'auc_{name}']:.4f}" for name in CLASSES)
    picture = html.render_figure(
        figure,
        f"AUC of this run with intervals, and published values: {values}, mean {metrics['auc']:.4f}",
        "Circles: this run, with 95 % intervals. Squares and diamonds: published values.",
    )
    note = escape(comparability_note(provenance.config, provenance.split))
    return f"<p>{note}</p>{table}{picture}"


def _scores(metrics: Mapping[str, Any]) -> str:
    rows = [
        [title, f"{metrics['images'][name]:,}"]
        + [_value_with_range(metrics, f"{kind}_{name}") for kind in ("auc", "f1")]
        for name, title in zip(CLASSES, DISPLAY_NAMES, strict=True)
    ]
    total = f"{sum(metrics['images'].values()):,}"
    means = [_value_with_range(metrics, name) for name in ("auc", "f1")]
    rows += [["mean", total, *means]]
    per_class = html.render_table("By class", ["class", "images", "AUC", "F1"], rows)
    others = {
        "accuracy": ("accuracy", "fraction of correct predictions"),
        "balanced_accuracy": ("balanced accuracy", "mean of the per-class accuracies"),
        "brier": ("Brier score", "squared distance from the one-hot label, 0 to 2"),
        "nll": ("log loss", "negative log-likelihood, nats per image"),
        "ece": ("calibration error", f"expected calibration error, {metrics['ece_bins']} bins"),
    }
    overall = html.render_table(
        "All classes",
        ["score", "value", "description"],
        [
            [title, _value_with_range(metrics, name), description]
            for name, (title, description) in others.items()
        ],
    )
    return f'<div class="pair">{per_class}{overall}</div>'


def _curves(figures: Mapping[str, Figure]) -> str:
    linear = html.render_figure(
        figures["roc"],
        "One-vs-rest ROC curves of the three classes",
        "ROC curve of each class against the other two.",
    )
    log = html.render_figure(
        figures["roc_log"],
        "The same ROC curves with a logarithmic false-positive axis",
        "The same curves with a logarithmic axis. A search in a large survey operates at the low "
        "false-positive rates on the left.",
    )
    return f'<div class="pair">{linear}{log}</div>'


def _confusion(metrics: Mapping[str, Any]) -> str:
    rows = []
    for title, counts in zip(DISPLAY_NAMES, metrics["confusion_matrix"], strict=True):
        cells: list[str | Cell] = [f"true: {title}"]
        for count in counts:
            fraction = count / max(sum(counts), 1)
            attributes = {"class": "full"} if fraction > 0.8 else {}
            attributes["style"] = f"--share:{0.06 + 0.92 * fraction:.3f}"
            cells.append(Cell(f"{100 * fraction:.1f} %<small>{count:,}</small>", attributes))
        rows.append(cells)
    return html.render_table(
        "Fraction of each true class by predicted class, and number of images",
        ["", *(f"predicted: {title}" for title in DISPLAY_NAMES)],
        rows,
        css_class="confusion",
    )


def _reliability(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    calibration = metrics["calibration"]
    text = (
        "Of the images whose predicted class has a probability of 0.9, 90 % should be classified correctly; "
        "the dashed line marks this ideal. "
    )
    if calibration is None:
        text += "No temperature was fitted for these predictions."
        table = ""
    else:
        text += (
            f"The logits are divided by a temperature of {calibration['temperature']:.3f}, fitted to the "
            "validation images. This does not change the predicted classes and hardly changes the AUCs."
        )
        names = {"ece": "calibration error", "brier": "Brier score", "nll": "log loss"}
        table = html.render_table(
            "Scores before and after temperature scaling",
            ["score", "uncalibrated", "calibrated"],
            [
                [title, f"{calibration[f'{name}_before']:.4f}", f"{calibration[f'{name}_after']:.4f}"]
                for name, title in names.items()
            ],
        )
    picture = html.render_figure(
        figures["reliability"],
        "Reliability diagram: accuracy as a function of the probability of the predicted class",
        "Error bars: Wilson 95 % intervals. Bottom: number of images per bin.",
    )
    return f'<p>{text}</p><div class="pair">{picture}{table}</div>'


def _learning(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    epochs, best = metrics["epochs"], metrics["best_epoch"]
    loss = html.render_figure(
        figures["loss"],
        f"Training and validation loss over {epochs} epochs",
        "The training loss is measured during the epoch, on augmented images.",
    )
    auc = html.render_figure(
        figures["learning_curves"],
        f"Validation AUC of the classes and their mean over {epochs} epochs; epoch {best} is the best",
        f"The band marks epoch {best}, the best by mean validation AUC, which this report evaluates.",
    )
    return f'<div class="pair">{loss}{auc}</div>'


def _reproducibility(provenance: Provenance) -> str:
    def code(text: str) -> str:
        return f"<pre><code>{escape(to_valid_utf8(text))}</code></pre>"

    original = ""
    if provenance.original_command not in (None, provenance.report_command):
        original = f"<p>Command that made this report:</p>{code(str(provenance.original_command))}"
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    settings = html.render_table(
        "Settings that differ from the defaults",
        ["field", "value"],
        [
            [f"config.{escape(name)}", escape(to_valid_utf8(value))]
            for name, value in provenance.settings.items()
        ],
        css_class="settings",
    )
    config = provenance.config.to_json(indent=2, sort_keys=False)
    return (
        f"<p>Seed {provenance.config.seed}, data seed {provenance.config.data.seed}. Computed on "
        f"{escape(provenance.device)} with {escape(versions)}.</p>{original}"
        f"<p>Command that reproduces this report:</p>{code(provenance.report_command)}{settings}"
        f"<details><summary>Full config</summary>{code(config)}</details>"
    )
