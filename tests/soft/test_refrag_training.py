"""Training of projector and policy on a tiny random decoder."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.refrag import Refrag
from ragpack.handoff.hf import HFDecoder
from ragpack.pipeline import ContextPacker
from ragpack.soft.checkpoint import load_checkpoint
from ragpack.soft.learned import PolicyNet
from ragpack.train.refrag.curriculum import CHUNKS, chunk_counts, lesson
from ragpack.train.refrag.data import HELD_OUT_PACKAGES, load_texts, python_source
from ragpack.train.refrag.policy import train_policy
from ragpack.train.refrag.projector import train
from ragpack.train.refrag.rewards import (
    advantages,
    answer_loss,
    drawn,
    log_probability,
    regression_loss,
    single,
)
from ragpack.train.refrag.samples import Sampler
from ragpack.train.refrag.scenes import Scenes
from ragpack.train.refrag.setup import set_up
from ragpack.types import Passage

HIDDEN = "Normans"  # one of the articles that training never sees


@pytest.fixture(scope="session")
def texts_folder(tmp_path_factory):
    """A few made-up texts in the files that training reads."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        {
            "title": title,
            "context": f"Long ago the {title} moved because of rain. "
            + "It was wet and cold. " * 60,
            "question": f"Why did the {title} move?",
            "answers": ["rain"],
        }
        for title in ("Saxons", "Danes", "Picts", HIDDEN)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "squad_v1.1_dev.jsonl").write_text(lines)
    story = {"sections": ["Once a fox met a hen and a goose by the river. " * 30]}
    (folder / "fairytaleqa.jsonl").write_text(json.dumps(story) + "\n")
    (folder / "wikitext2_valid.txt").write_text("The lobster lives in the sea . " * 50)
    return folder


@pytest.fixture(scope="module")
def settings(decoder_folder):
    return {"decoder": decoder_folder, "steps": 4, "batch": 2, "seed": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(texts_folder, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "new"
    return train(texts_folder, folder, **settings)


def test_a_training_leaves_what_the_method_loads(trained):
    folder = trained.weights.parent
    names = {file.name for file in folder.iterdir()}
    assert names == {"README.md", "config.json", "loss.png", "model.safetensors", "training.json"}
    assert (folder / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert set(trained.metrics) == {"none", "full", "soft", "cut"}
    (artifact,) = Refrag(folder, device="cpu").compress([Passage("p", "a fox")], None)
    assert artifact.vectors.dtype == np.int8
    assert load_checkpoint(folder)[0].rarity.std() > 0


def test_an_interrupted_training_ends_as_an_unbroken_one(
    trained, texts_folder, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("ragpack.train.run._SAVE_EVERY", 2)

    def stop(done: int, _: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(texts_folder, tmp_path / "new", **settings, watch=stop)
    again = train(texts_folder, tmp_path / "new", **settings)
    assert again.weights.read_bytes() == trained.weights.read_bytes()


def test_training_changes_the_projector_alone(trained, texts_folder, settings, tmp_path):
    more = train(texts_folder, tmp_path / "new", **(settings | {"steps": 5}))
    before, after = load_file(trained.weights), load_file(more.weights)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"projector"}


def test_an_update_of_the_decoder_is_merged_into_one_of_its_own(
    texts_folder, settings, decoder_folder, tmp_path
):
    done = train(texts_folder, tmp_path / "new", **settings, lora=2)
    folder = done.weights.parent
    before, after = (
        load_file(Path(each) / "model.safetensors") for each in (decoder_folder, folder / "decoder")
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 4  # queries and values of two layers
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    packer = ContextPacker(Refrag(folder, device="cpu"), store=MemoryStore(), strict=True)
    packed = packer.pack("Why?", [Passage("p", "a fox met a hen")])
    new, old = (HFDecoder(str(each), device="cpu") for each in (folder / "decoder", decoder_folder))
    assert new.inputs(packed, "Why?").embeds is not None
    assert old.inputs(packed, "Why?").embeds is None


def test_the_projector_learns(trained, texts_folder, decoder_folder, tmp_path):
    """Twenty steps on one sample lower its loss: gradients reach the projector."""
    from ragpack.train.refrag.lessons import Lessons

    setup = set_up(deepcopy(load_checkpoint(trained.weights.parent)[0]), "cpu")
    sampler = Sampler(load_texts(texts_folder), setup.prompts, [8], setup.reader.repeat)
    _, samples = sampler.step(0.9, 2, random.Random(0))
    parts = list(setup.checkpoint.projector.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(parts, lr=3e-3)
    losses = []
    for _ in range(20):
        loss = Lessons(setup).loss(samples, distil=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


def test_losses_of_masks_are_those_of_the_prompts_they_stand_for(trained, texts_folder):
    setup = set_up(load_checkpoint(trained.weights.parent)[0], "cpu")
    texts = load_texts(texts_folder)
    sampler = Sampler(texts, setup.prompts, [8], setup.reader.repeat)
    sample = sampler.answered(texts.questions[0], 8, random.Random(0))
    count = len(sample.chunks.texts)
    with torch.inference_mode():
        rows = setup.checkpoint.projector(setup.vectors([sample]))
    masks = [*single(count), np.ones(count, dtype=bool)]
    losses = setup.losses(sample, rows, masks)
    prefix = setup.prompts.prompt("x", "").prefix
    ids = [*prefix, *sample.spelled_out.context, *sample.between, *sample.target]
    with torch.inference_mode():
        logits = setup.reader.model(torch.tensor([ids])).logits[0]
    ends = len(sample.target)
    expected = cross_entropy(logits[-ends - 1 : -1], torch.tensor(list(sample.target)))
    assert float(losses[-1]) == pytest.approx(float(expected), abs=1e-4)
    assert losses[:-1].std() > 0


def test_a_question_stands_behind_two_passages_of_which_one_answers(trained, texts_folder):
    setup = set_up(load_checkpoint(trained.weights.parent)[0], "cpu")
    texts = load_texts(texts_folder)
    sampler = Sampler(texts, setup.prompts, [8], setup.reader.repeat)
    asked, places = texts.questions[0], set()
    for seed in range(12):
        sample = sampler.answered(asked, 8, random.Random(seed), share=0.25)
        text = "".join(sample.chunks.texts)
        assert text.count("\n\n") == 2
        first, second, _ = text.split("\n\n")
        assert asked.answer in first + second
        places.add("Saxons" in second)
        assert sample.expanded.sum() == round(0.25 * len(sample.expanded))
        assert len(sample.chunks.texts) <= 2 * 9
    assert places == {True, False}


def test_spelled_out_chunks_take_no_soft_token(trained, texts_folder):
    """The loss of a sample whose chunks are all spelled out is the plain prompt's."""
    from ragpack.train.refrag.lessons import Lessons

    setup = set_up(load_checkpoint(trained.weights.parent)[0], "cpu")
    texts = load_texts(texts_folder)
    sampler = Sampler(texts, setup.prompts, [8], setup.reader.repeat)
    sample = sampler.answered(texts.questions[0], 8, random.Random(0), share=1.0)
    logits = setup.reader.logits([sample.spelled_out])
    wanted = cross_entropy(logits, torch.tensor(list(sample.target)))
    assert float(Lessons(setup).loss([sample])) == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize("way", ["answers", "regression", "grpo"])
def test_a_policy_is_trained_beside_its_projector(trained, texts_folder, tmp_path, way):
    start = load_file(trained.weights)
    folder = trained.weights.parent
    done = train_policy(texts_folder, folder, tmp_path / "new", way=way, steps=2, device="cpu")
    after = load_file(done.weights)
    assert set(done.metrics) == {"learned", "query-cosine", "random"}
    changed = {name.split(".")[0] for name in start if not torch.equal(start[name], after[name])}
    assert changed == {"policy"}
    assert Refrag(done.weights.parent, sense="learned").policy.reads_query


def test_a_scene_shows_whole_passages_and_where_the_answer_stands(trained, texts_folder):
    setup = set_up(load_checkpoint(trained.weights.parent)[0], "cpu")
    asked = load_texts(texts_folder).questions
    scenes, found = Scenes(asked, setup), set()
    whole = setup.prompts.tokens_before_text(asked[0].context + "\n\n")
    for seed in range(12):
        scene = scenes.draw(random.Random(seed))
        again = scenes.draw(random.Random(seed))
        assert torch.equal(scene.vectors, again.vectors)
        held = scene.holds.nonzero()[:, 0].tolist()
        assert len(held) == 1  # "rain" is one token
        first = -(-len(whole) // 8)  # chunks of a passage; the answer is in its beginning
        assert held[0] % first == 1
        found.add((len(scene.holds) // first, held[0] // first))
    assert {1, 2, 3} >= {count for count, _ in found} > {2}
    assert {place for _, place in found} >= {0, 1}


def test_an_answers_loss_falls_with_its_chunks_chance():
    holds = torch.tensor([False, True, True, False])
    even = answer_loss(torch.zeros(4), holds)
    assert float(even) == pytest.approx(np.log(2))
    assert answer_loss(torch.tensor([0.0, 1.0, 0.0, 0.0]), holds) < even
    assert answer_loss(torch.tensor([1.0, 0.0, 0.0, 0.0]), holds) > even


def test_draws_have_the_chances_that_are_told():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -0.5, 2.0])
    sets = list(permutations(range(4), 2))
    chances = torch.stack([log_probability(logits, one) for one in sets]).exp()
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-5)
    found = [tuple(drawn(logits, 2)) for _ in range(4000)]
    shares = torch.tensor([found.count(one) / 4000 for one in sets])
    assert float((shares - chances).abs().max()) < 0.03


def test_equal_rewards_teach_nothing():
    assert not advantages(torch.full((8,), 2.5)).any()
    better = advantages(torch.tensor([1.0, 2.0, 3.0]))
    assert better.argmax() == 0
    assert float(better.mean()) == pytest.approx(0.0, abs=1e-6)


def test_the_net_can_learn_which_chunks_are_worth_it():
    """Chunks whose third number agrees with the query's are worth it: cosines do not tell that."""
    torch.manual_seed(0)
    net = PolicyNet(8, 16)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        vectors, query = torch.randn(10, 8), torch.randn(8)
        return vectors, query, (vectors[:, 2] * query[2] > 0).float()

    for _ in range(150):
        vectors, query, gains = scene()
        loss = regression_loss(net(vectors, query), torch.cat([torch.ones(1), 1 - gains]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = []
    with torch.inference_mode():
        for _ in range(40):
            vectors, query, gains = scene()
            if 0 < gains.sum() < 10:
                right.append(float(gains[net(vectors, query).argmax()]))
    assert sum(right) / len(right) > 0.8


def test_the_curriculum_goes_from_one_chunk_to_many():
    draw = random.Random(0)
    early, late = (chunk_counts(progress, draw, 500) for progress in (0.0, 0.5))
    assert np.mean(early) < 2 < 4 < np.mean(late)
    assert set(early) == set(late) == set(CHUNKS)
    assert {lesson(0.01, draw) for _ in range(50)} == {"repeat"}
    assert {lesson(0.5, draw) for _ in range(50)} == {"repeat", "continue", "answer"}


def test_whole_packages_and_articles_are_held_out(texts_folder):
    texts = load_texts(texts_folder)
    assert HIDDEN not in " ".join(each.context for each in texts.questions)
    assert not set(python_source(held_out=True)) & set(texts.source)
    assert len(list(python_source(held_out=True))) > len(HELD_OUT_PACKAGES)
