"""The digits example does what README says, and README shows the very files that run."""

from __future__ import annotations

import json
import re
import shutil
import signal
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
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=280)  # noqa: S603
    return done.stdout


def epochs(output: str) -> list[int]:
    """List the epochs at whose end a line was printed; there is one in between where nothing was for long."""
    return [int(number) for number in re.findall(r"^epoch (\d+)/\d+ \| \d+ batches ", output, re.MULTILINE)]


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
    services = ["training", "compilation"]
    story = ["src/domain.py", "src/classifier.py", *(f"src/services/{name}.py" for name in services), "main.py"]
    assert [name for name, _ in SHOWN] == story


def test_it_learns_and_stops_by_itself(program: tuple[Path, str, str]) -> None:
    """A line per epoch, 97 % and more, an early stop by a domain event, and a table at the end."""
    _, output, _ = program
    assert epochs(output) == list(range(1, len(epochs(output)) + 1))
    assert accuracy(output) >= 97
    assert re.search(r"validation/loss did not get better than [\d.]+ in \d+ epochs", output)
    assert re.search(rf"epochs in all +{len(epochs(output))}\n", output)
    assert "tensorboard --logdir" in output


def test_a_finished_run_is_left_as_it_is(program: tuple[Path, str, str]) -> None:
    """Run again, it finds the run finished, trains nothing, and comes to the same figures."""
    _, first, second = program
    assert second.startswith("Continuing after batch ")
    assert epochs(second) == []
    assert first[first.index("  epochs in all") :] == second[second.index("  epochs in all") :]


def test_it_leaves_its_folder(program: tuple[Path, str, str]) -> None:
    """Curves that TensorBoard reads, a history, pictures, a record of the source, and the last checkpoints."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    folder, first, _ = program
    run = folder / "runs/digits/convnet/baseline"
    for split in ("train", "validation"):
        written = EventAccumulator(str(run / "tensorboard" / split))
        written.Reload()
        for tag in ("loss", "accuracy"):
            assert [point.step for point in written.Scalars(tag)] == epochs(first)
    records = [json.loads(line) for line in (run / "history/history.jsonl").read_text().splitlines()]
    assert len(records) == 4 * len(epochs(first))
    assert {path.name for path in run.glob("plots/*")} == {"accuracy.png", "loss.png"}
    assert (run / "snapshots/1/source.py").exists()
    assert len(list(run.glob("checkpoints/default/*/*/manifest.json"))) in {3, 4}


def test_an_interrupted_run_ends_as_one_left_alone(program: tuple[Path, str, str]) -> None:
    """Ctrl-C in the middle of an epoch, and then the same line: figures are those of the run that nobody disturbed."""
    folder, first, _ = program
    again = folder.parent / f"{folder.name}-interrupted"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("runs"))
    command = [sys.executable, "-u", str(again / "main.py")]
    with subprocess.Popen(command, cwd=again, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        assert process.wait(timeout=200) == 128 + signal.SIGINT
    continued = run(again)
    assert continued.startswith("Continuing after batch ")
    assert first[first.index("  epochs in all") :] == continued[continued.index("  epochs in all") :]
