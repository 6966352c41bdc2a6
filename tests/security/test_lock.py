"""requirements/*.lock name every package that is needed, each with the checksums of its files."""

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(path: Path) -> dict[str, list[str]]:
    """Return the checksums of each requirement of a lock file."""
    text = "\n".join(line for line in path.read_text().splitlines() if line[:1] != "#")
    entries = [re.split(r" \\\n +", entry) for entry in re.split(r"(?<!\\)\n", text) if entry]
    return {head: hashes for head, *hashes in entries}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_each_package_has_one_version_and_its_checksums(path: Path) -> None:
    """Nothing else stands there: no other index, no folder of a machine."""
    found = requirements(path)
    assert found
    for head, hashes in found.items():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[\w.!]+( ; .+)?", head), head
        assert hashes, head
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), head


def test_the_locks_have_what_pyproject_asks_for() -> None:
    """In a version that it allows: run.lock for the program, test.lock for the extras beside it."""
    project = PROJECT["project"]
    build, run, test = map(requirements, LOCKS)
    extras = chain(*project["optional-dependencies"].values())
    for wanted, found in (
        (PROJECT["build-system"]["requires"], build),
        (project["dependencies"], run),
        (extras, run | test),
    ):
        versions = dict(head.split(" ;")[0].split("==") for head in found)
        for requirement in map(Requirement, wanted):
            version = versions.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} is in no lock: install it, then scripts/lock"
            assert version in requirement.specifier, f"{requirement}: {version}"
    assert not {head.split("==")[0] for head in run} & {head.split("==")[0] for head in test}


def test_without_cuda_the_rest_stays(tmp_path: Path) -> None:
    """Where torch is there for processors alone, the lock is the same but for CUDA's packages."""
    run = ROOT / "requirements" / "run.lock"
    version = next(head[7:] for head in requirements(run) if head.startswith("torch=="))
    (tmp_path / "requirements").symlink_to(ROOT / "requirements")
    packages = tmp_path / ".venv" / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    assert locked(tmp_path) == tmp_path / "requirements" / "run.lock"
    (packages / f"torch-{version}+cpu.dist-info").mkdir()
    less, whole = requirements(locked(tmp_path)), requirements(run)
    assert less.items() < whole.items()
    cuda = {head for head in whole if re.match(r"nvidia-|cuda-|triton==", head)}
    assert whole.keys() - less.keys() == cuda != set()


def locked(root: Path) -> Path:
    """Return the file that scripts/install.sh takes for run.lock."""
    command = ["bash", "-c", f". {ROOT}/scripts/install.sh; root={root}; locked run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return Path(done.stdout.strip())
