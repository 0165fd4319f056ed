"""The digits example does what README says, and README shows the very files that run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits"
BLOCK = re.compile(r"```python\n# examples/digits/(?P<name>\S+)\n(?P<text>.*?)```\n", re.DOTALL)
SHOWN = [(match["name"], match["text"]) for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))]


def run(folder: Path) -> str:
    """Run the program in `folder` as a user would, and return what it prints."""
    command = [sys.executable, str(folder / "main.py")]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)  # noqa: S603
    return done.stdout


def epochs(output: str) -> list[int]:
    """List the epochs of which a line was printed."""
    return [int(number) for number in re.findall(r"^epoch +(\d+) ", output, re.MULTILINE)]


def accuracy(output: str) -> float:
    """Read the accuracy from the table at the end, in percent."""
    found = re.search(r"validation accuracy +([\d.]+)%", output)
    assert found is not None
    return float(found[1])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Put the program together from what README shows, run it, and run it again."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("src/network.py", "src/metrics.py", "src/data.py"):  # README names these, and does not show them
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLE / name, folder / name)
    for name, text in SHOWN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder, run(folder), run(folder)


@pytest.mark.parametrize(("name", "text"), SHOWN, ids=[name for name, _ in SHOWN])
def test_readme_shows_the_files_as_they_are(name: str, text: str) -> None:
    """Each block of the walk through the example is the file it names, letter by letter."""
    assert text == (EXAMPLE / name).read_text(encoding="utf-8")


def test_readme_walks_through_the_whole_story() -> None:
    """From the protocols to the composition root, in this order."""
    services = ["training", "tensorboard", "earlystopping", "checkpoints", "compilation"]
    story = ["src/domain.py", "src/classifier.py", *(f"src/services/{name}.py" for name in services), "main.py"]
    assert [name for name, _ in SHOWN] == story


def test_it_learns_and_stops_by_itself(program: tuple[Path, str, str]) -> None:
    """A line per epoch, 97 % and more, an early stop by a domain event, and a table at the end."""
    _, output, _ = program
    assert epochs(output) == list(range(1, len(epochs(output)) + 1))
    assert accuracy(output) >= 97
    assert re.search(r"Stopped: no lower validation loss in \d+ epochs", output)
    assert re.search(rf"epochs in all +{len(epochs(output))}\n", output)
    assert "tensorboard --logdir" in output
    assert "make demo" in output


def test_a_second_run_goes_on_from_the_checkpoint(program: tuple[Path, str, str]) -> None:
    """It begins with the epoch after the last one, and no worse than where the first run ended."""
    _, first, second = program
    assert second.startswith("Continuing ")
    assert epochs(second)[0] == epochs(first)[-1] + 1
    assert accuracy(second) >= 97


def test_it_leaves_curves_and_a_checkpoint(program: tuple[Path, str, str]) -> None:
    """TensorBoard reads every metric of every epoch of both runs; the checkpoint loads without running code."""
    import torch  # noqa: PLC0415
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    folder, first, second = program
    written = EventAccumulator(str(folder / "runs" / "tensorboard"))
    written.Reload()
    for tag in ("loss/train", "loss/validation", "accuracy/train", "accuracy/validation"):
        assert [point.step for point in written.Scalars(tag)] == epochs(first) + epochs(second)
    (checkpoint,) = (folder / "runs" / "checkpoints").iterdir()
    assert torch.load(checkpoint, weights_only=True)["epoch"] == epochs(second)[-1]
