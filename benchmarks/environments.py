"""Virtual environments for the libraries that jdqn is compared with, each made once, from the package registry."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
GYMNAX_0 = ["gymnax", "flax", "optax", "chex", "six", "jax", "distrax", "flashbax==0.1.3"]
CONSTRAINED = ["-c", str(ROOT / "constraints.txt")]
# What pip installs, one call after another. What wants an old gymnax gets it last, without its old companions: so
# every library runs on the same jax as ours.
INSTALLS: dict[str, list[list[str]]] = {
    "PureJaxRL": [[*CONSTRAINED, *GYMNAX_0], ["--no-deps", "gymnax<1"]],
    "PureJaxQL": [[*CONSTRAINED, *GYMNAX_0], ["--no-deps", "gymnax<1"]],
    "Rejax": [[*CONSTRAINED, *GYMNAX_0, "pyyaml"], ["--no-deps", "gymnax<1", "rejax==0.1.3"]],
    "flashbax": [[*CONSTRAINED, *OURS], ["--no-deps", "flashbax==0.1.3"]],
    "Stable-Baselines3": [["TORCH", "stable-baselines3==2.9.2", "gymnasium==1.3.0"]],
    "CleanRL": [["TORCH", "gymnasium==0.29.1", "numpy<2", "tyro", "psutil"]],
}


class Missing(Exception):
    """A library cannot run; the message says what to do."""


def python_of(library: str, folder: Path, torch: str) -> str:
    """The Python of the environment of `library` below `folder`, made if it is not there or holds something else.

    Args:
        torch: what pip is to install for PyTorch.

    Raises:
        Missing: pip cannot install it.
    """
    if library == "jdqn":
        return sys.executable
    where = folder / library
    python, done = where / "bin" / "python", where / "complete"
    installs = [[torch if name == "TORCH" else name for name in packages] for packages in INSTALLS[library]]
    if done.exists() and done.read_text() == repr(installs):
        return str(python)
    print(f"making an environment for {library} in {where}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(where)], check=True)
    for packages in installs:
        out = subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
        if out.returncode:
            reason = [line for line in out.stderr.splitlines() if "ERROR" in line] or [f"status {out.returncode}"]
            raise Missing(f"not run: pip install {' '.join(packages)}: {reason[-1]}")
    done.write_text(repr(installs))
    return str(python)
