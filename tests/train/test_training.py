"""What every training keeps: equal seeds give equal weights, interrupted or not."""

import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ragpack.cli.app import app
from ragpack.compressors.exit_mini import ExitMini
from ragpack.compressors.recomp_mini import RecompMini
from ragpack.config import DEFAULT_ENCODER
from ragpack.errors import ConfigError
from ragpack.models import load_encoder
from ragpack.train import exit_mini, recomp_mini, run
from ragpack.train.run import CHECKPOINT, Plan, claim
from ragpack.types import Passage

TRAININGS = {"exit-mini": exit_mini.train, "recomp-mini": recomp_mini.train}
PASSAGE = Passage("p", "It is red. It is old.")


@pytest.fixture(params=sorted(TRAININGS))
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(training_data, tmp_path_factory):
    """The outcome of four steps of each training."""
    return {
        name: train(training_data, tmp_path_factory.mktemp(name), steps=4)
        for name, train in TRAININGS.items()
    }


def same(first, second) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_an_interrupted_run_ends_as_an_unbroken_one(
    method, trained, training_data, tmp_path, monkeypatch
) -> None:
    def stop(done: int, loss: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "_SAVE_EVERY", 2)
    train = TRAININGS[method]
    with pytest.raises(KeyboardInterrupt):
        train(training_data, tmp_path, steps=4, watch=stop)
    steps = []
    resumed = train(training_data, tmp_path, steps=4, watch=lambda done, loss: steps.append(done))
    assert steps == [3, 4]
    assert same(resumed.weights, trained[method].weights)
    assert not (tmp_path / CHECKPOINT).exists()


def test_another_seed_gives_other_weights(method, trained, training_data, tmp_path) -> None:
    other = TRAININGS[method](training_data, tmp_path, steps=4, seed=8)
    assert not same(other.weights, trained[method].weights)


def test_the_weights_are_what_the_method_loads(trained) -> None:
    (judged,) = ExitMini(weights=trained["exit-mini"].weights).compress([PASSAGE], "Why?")
    assert len(judged.scores) == 2
    made = RecompMini(adapter=trained["recomp-mini"].weights.parent)
    (vectors,) = made.compress([PASSAGE], None)
    assert vectors.vectors.shape == (2, 384)
    plain = load_encoder(DEFAULT_ENCODER)
    assert made.encoder.fingerprint != plain.fingerprint
    assert not torch.equal(
        *map(torch.from_numpy, (made.encoder.encode(["a"]), plain.encode(["a"])))
    )


def test_a_record_and_a_card_lie_beside_the_weights(method, trained) -> None:
    folder = trained[method].weights.parent
    record = json.loads((folder / "training.json").read_text())
    assert record == trained[method].to_dict()
    assert (record["method"], record["seed"], record["steps"]) == (method, 7, 4)
    assert 0 <= record["metrics"]["accuracy"] <= 1
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# {method}: model card\n")
    assert f"ragpack train {method} --data DATA --output FOLDER --seed 7 --steps 4" in card


def test_a_folder_with_other_things_in_it_is_left_alone(method, training_data, tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="not empty"):
        TRAININGS[method](training_data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_unfinished_run_of_another_plan_is_left_alone(training_data, tmp_path, monkeypatch):
    def stop(done: int, loss: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "_SAVE_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        recomp_mini.train(training_data, tmp_path, steps=3, watch=stop)
    with pytest.raises(ConfigError, match="'seed': 7"):
        recomp_mini.train(training_data, tmp_path, steps=3, seed=1)
    assert claim(tmp_path, Plan("recomp-mini", seed=7, steps=3, batch=48, rate=5e-4)) is None
    with pytest.raises(ConfigError, match="past 1 steps: 2 are done"):
        recomp_mini.train(training_data, tmp_path, steps=1)
    done: list[int] = []
    ended = recomp_mini.train(training_data, tmp_path, steps=4, watch=lambda n, _: done.append(n))
    assert (ended.plan.steps, done) == (4, [3, 4])


def test_no_steps_are_no_plan() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Plan("any", seed=1, steps=0, batch=1, rate=1.0)


def test_the_rate_rises_and_falls() -> None:
    plan = Plan("any", seed=1, steps=100, batch=1, rate=2.0)
    rates = [plan.rate_at(step) for step in range(100)]
    assert max(rates) == rates[4] == rates[5] == 2.0
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.03


def command(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_gives_the_same_weights(method, trained, training_data, tmp_path) -> None:
    folder = tmp_path / "new"
    options = ("--data", training_data, "--output", folder, "--steps", 4, "--seed", 7, "--json")
    ran = command(method, *options)
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == trained[method].to_dict()
    assert same(folder / trained[method].weights.name, trained[method].weights)


def test_the_command_says_what_is_wrong(method, tmp_path) -> None:
    nowhere = command(method, "--data", tmp_path / "none", "--output", tmp_path / "new")
    assert isinstance(nowhere.exception, ConfigError)
    assert "holds no squad" in str(nowhere.exception)
    assert not (tmp_path / "new").exists()
    unknown = command("exit-maxi", "--data", tmp_path, "--output", tmp_path / "new")
    assert unknown.exit_code == 2
    assert "No such command 'exit-maxi'" in unknown.stderr
