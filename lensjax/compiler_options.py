"""Options of XLA that make programs for CPUs quicker, to run or to compile."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Loops by XLA's older emitters: small nets take their training steps in two thirds of the time, and are
# compiled sooner; large nets' steps take the same, and a large transformer takes longer to compile.
# Programs that draw random numbers, simulate or fit are slower. JAX 0.11 has this option no more.
OLDER_LOOPS = ("xla_cpu_use_fusion_emitters", False)
# For programs that run once: compiled in half the time, with the same bits.
LESS_OPTIMISED = ("xla_backend_optimization_level", 1)


@functools.cache
def if_known(option: tuple[str, Any]) -> dict[str, Any]:
    """The option as `jax.jit` takes it; nothing on accelerators, or where this XLA does not know it.

    Args:
      option: its name and its value.
    """
    if jax.default_backend() != "cpu":
        return {}
    options = dict([option])
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def compiled_with(function: Any, options: dict[str, Any]) -> Callable[..., Any]:
    """A mapped or jitted function, compiled with options for the shapes of its first call and any others.

    Args:
      function: mapped over devices, for which JAX takes no options, or jitted.
      options: as `if_known` gives them; none leave the function as it is, and so do several processes.
    """
    # The programs of several processes ask for the shapes of what all of them have together.
    if not options or jax.process_count() > 1:
        return function
    programs: dict[Any, Callable[..., Any]] = {}  # by shapes, types and layouts

    def call(*arguments: Any) -> Any:
        if jax.config.values["jax_debug_nans"]:  # which compiled programs do not look into
            return function(*arguments)
        key = tuple(
            (leaf.shape, leaf.dtype, getattr(leaf, "sharding", None))
            for leaf in jax.tree.leaves(arguments)
        )
        if key not in programs:
            programs[key] = function.lower(*arguments).compile(compiler_options=options)
        return programs[key](*arguments)

    return call
