"""Profiles, and the settings of one run.

A profile is a set of numbers in `profiles/NAME.toml`: a table `defaults` and a table per notebook. The code path is
the same for all profiles; any number can be overridden by name.
"""

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mipo_nb.base.errors import UserError, did_you_mean
from mipo_nb.base.hardware import hardware

_GPU_BYTES = 8 * 1024**3 * 0.95  # cards sold as "8 GB" report a little less


def profile_names(notebook=None):
    """The names of the profiles that come with the package: all, or those that a notebook can be run with."""
    folder = resources.files("mipo_nb") / "profiles"
    names = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
    return [n for n in names if notebook is None or notebook in _tables(profile_file(n)).get("notebooks", [notebook])]


@dataclass(frozen=True)
class Settings:
    """Everything that sizes a run. `numbers` holds the profile's values for this notebook, overrides applied."""

    profile: str
    notebook: str
    model: str
    seed: int
    device: str
    dtype: str
    numbers: dict

    def __getattr__(self, name):
        try:
            return self.__dict__["numbers"][name]
        except KeyError:
            known = self.__dict__.get("numbers", {})
            raise AttributeError(f"profile has no number '{name}'; {did_you_mean(name, known)}") from None


def profile_file(profile):
    """Where a profile is written: one of the package's by its name, a user's own by a path that ends in .toml.

    Raises `UserError` where there is none.
    """
    own = Path(profile).expanduser()
    if own.suffix == ".toml":
        if not own.is_file():
            raise UserError(f"There is no profile file '{profile}'; give its whole path.")
        return own.resolve()
    if profile not in profile_names():
        raise UserError(f"Unknown profile '{profile}'; {did_you_mean(profile, [*profile_names(), 'auto'])}")
    return resources.files("mipo_nb") / "profiles" / f"{profile}.toml"


def profile_numbers(profile, notebook):
    """The numbers of one profile for one notebook: its defaults with the notebook's own values on top.

    A user's own file need only hold what differs from the laptop profile. A profile that names its `notebooks` is for
    these alone; `notebook=None` gives any profile's defaults. Raises `UserError` for another notebook, for a file that is
    no TOML, or has a table, a name or a value that the laptop profile could not have.
    """
    file = profile_file(profile)
    tables = _tables(file)
    served = tables.get("notebooks", [notebook])
    if notebook is not None and notebook not in served:
        numbers = ", ".join(name.partition("_")[0] for name in served)
        raise UserError(f"The profile '{profile}' is for notebooks {numbers}, not for {notebook}; use gpu or laptop.")
    numbers = {**tables.get("defaults", {}), **tables.get(notebook, {})}
    if Path(profile).suffix != ".toml":
        return numbers
    laptop = _tables(profile_file("laptop"))
    for heading, table in tables.items():
        if heading not in laptop or not isinstance(table, dict):
            raise UserError(
                f"{file.name}, {_line(file, heading)}: no table '{heading}'; {did_you_mean(heading, laptop)}"
            )
        known = {**laptop["defaults"], **laptop[heading]}
        for name, value in table.items():
            where = f"{file.name}, {_line(file, heading, name)}"
            if name not in known:
                raise UserError(f"{where}: unknown number '{name}'; {did_you_mean(name, known)}")
            try:
                _checked(name, value, known[name])
            except UserError as e:
                raise UserError(f"{where}: {e}") from None
    return {**laptop["defaults"], **laptop.get(notebook, {}), **numbers}


def _tables(file):
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"The profile {file.name} cannot be read: {e}.") from None


def _line(file, heading, name=None):
    """ "line N" of a table, or of a name in it, for an error message."""
    inside, wanted = False, heading if name is None else name
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        word = line.split("=")[0].strip().strip("[]\"' ")
        if name is not None and line.lstrip().startswith("["):
            inside = word == heading
        elif word == wanted and (inside or name is None):
            return f"line {number}"
    return f"table '{heading}'"


def resolve(profile, notebook, *, model=None, seed=0, device=None, **overrides):
    """Settings for a notebook.

    `profile="auto"` takes `gpu` where CUDA with 8 GB or more is seen, else `laptop`. `overrides` with value None are
    ignored; the others must name a number of the profile and keep its type.

    Raises `UserError` for an unknown profile or number, a value of the wrong type or sign, or an absent device.
    """
    machine = hardware()
    if profile == "auto":
        profile = "gpu" if machine.cuda_memory >= _GPU_BYTES else "laptop"
    numbers = profile_numbers(profile, notebook)
    for name, value in overrides.items():
        if value is None:
            continue
        if name not in numbers:
            raise UserError(f"Unknown parameter '{name}'; {did_you_mean(name, numbers)}")
        numbers[name] = _checked(name, value, numbers[name])
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise UserError(f"SEED must be a whole number from 0 to {2**31 - 1}, not {seed!r}.")
    device = device or machine.device
    if device == "cuda" and not machine.cuda:
        raise UserError("CUDA was asked for but no CUDA device is visible; use device='cpu' or profile 'laptop'.")
    if device not in ("cpu", "cuda"):
        raise UserError(f"Unknown device '{device}'; use 'cpu' or 'cuda'.")
    model = model or numbers.get("model")
    numbers = {k: v for k, v in numbers.items() if k != "model"}
    return Settings(Path(profile).stem, notebook, model, seed, device, machine.dtype, numbers)


def _checked(name, value, default):
    """`value` if it has the type and sign of the profile's own value for this number."""
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is not type(value):
        raise UserError(f"{name} must be of type {kind.__name__} (like {default!r}), not {value!r}.")
    if kind in (int, float) and not (0 <= value < float("inf")) or (value == 0 and default):
        raise UserError(f"{name} must be a finite number greater than 0, not {value!r}.")
    if name == "top_p" and value > 1:
        raise UserError(f"top_p is a probability and cannot be {value!r}; use a number up to 1.")
    return value
