"""APE's softmax over two groups against its formula, written out."""

import pytest
import torch
from torch import nn

from ragpack.kv.attention import _attention
from ragpack.kv.cache import MARK
from ragpack.kv.kernel import attend
from ragpack.kv.plan import Plan

HEADS, KV_HEADS, DIM = 4, 2, 8
PREFIX, CONTEXT, QUERY = 3, 10, 4
STORED, LENGTH = PREFIX + CONTEXT, PREFIX + CONTEXT + QUERY


def _tensors(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    make = lambda heads, n: torch.randn(1, heads, n, DIM, generator=generator, dtype=dtype) * 2  # noqa: E731
    return make(HEADS, QUERY), make(KV_HEADS, LENGTH), make(KV_HEADS, LENGTH)


def _plan(temperature, scale):
    """Two passages of five side by side behind the prefix; the query behind the longer."""
    positions = [*range(PREFIX), *range(3, 8), *range(3, 8), *range(8, 8 + QUERY)]
    return Plan(
        positions=torch.tensor([positions]),
        columns=torch.arange(STORED, LENGTH)[None],
        stored=STORED,
        context=(PREFIX, STORED),
        temperature=temperature,
        scale=scale,
    )


def _formula(query, key, value, plan, *, softcap=None, sinks=None, window=None):
    """Equation 5 and appendix C.4, query by query, with S·T on the context's log-sum-exp."""
    key, value = (part.repeat_interleave(HEADS // KV_HEADS, dim=1) for part in (key, value))
    places = plan.positions[0]
    out = torch.zeros_like(query)
    for h in range(HEADS):
        for i in range(QUERY):
            place = places[STORED + i]
            seen = [j for j in range(LENGTH) if places[j] <= place and j <= STORED + i]
            seen = [j for j in seen if window is None or place - places[j] < window]
            logits = key[0, h] @ query[0, h, i] * DIM**-0.5
            total = []
            for inside, heat in ((True, plan.temperature), (False, 1.0)):
                group = [j for j in seen if (PREFIX <= j < STORED) == inside]
                warm = logits[group] / heat
                warm = softcap * torch.tanh(warm / softcap) if softcap else warm
                if not inside and sinks is not None:
                    warm = torch.cat([warm, sinks[h : h + 1]])
                    rows = torch.cat([value[0, h, group], torch.zeros(1, DIM, dtype=value.dtype)])
                else:
                    rows = value[0, h, group]
                mass = warm.logsumexp(0) * (plan.scale * heat if inside else 1.0)
                total.append((mass, warm.softmax(0) @ rows if len(warm) else 0.0))
            weights = torch.stack([mass for mass, _ in total]).softmax(0)
            out[0, h, i] = sum(w * part for w, (_, part) in zip(weights, total, strict=True))
    return out.transpose(1, 2)


@pytest.mark.parametrize(("temperature", "scale"), [(1, 1), (0.9, 0.9), (0.6, 1), (0.9, 0.8)])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"softcap": 5.0},
        {"s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)},
        {"window": 6},
    ],
    ids=["plain", "softcap", "sinks", "window"],
)
def test_two_groups_follow_the_formula(temperature, scale, extra):
    query, key, value = _tensors()
    plan = _plan(temperature, scale)
    settings = dict(extra)
    window = settings.pop("window", None)
    marked = key.view_as(key)
    setattr(marked, MARK, (plan, window))
    found, _ = _attention(nn.Module(), query, marked, value, None, scaling=DIM**-0.5, **settings)
    sinks = settings.pop("s_aux", None)
    wanted = _formula(query, key, value, plan, sinks=sinks, window=window, **settings)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_log_sum_exps_stay_exact_in_bfloat16():
    """A context weight from bfloat16 log-sum-exps would be off by percents."""
    query, key, value = (part.to(torch.bfloat16) for part in _tensors())
    _, lse = attend(query * 4, key * 4, value, 1.0)
    _, exact = attend(query.double() * 4, key.double() * 4, value.double(), 1.0)
    assert lse.dtype == torch.float32
    assert float(exact.abs().max()) > 16
    assert float((lse - exact).abs().max()) < 0.01


def test_a_query_that_sees_nothing_gives_zeros_and_no_mass():
    query, key, value = _tensors(torch.float32)
    mask = torch.zeros(1, 1, QUERY, LENGTH)
    mask[:, :, 0] = -torch.inf
    for softcap in (None, 10.0):
        out, lse = attend(query, key, value, 1.0, mask=mask, softcap=softcap)
        assert bool((out[:, :, 0] == 0).all())
        assert bool(torch.isneginf(lse[:, :, 0]).all())
        assert bool(torch.isfinite(out[:, :, 1:]).all())


@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_and_the_plain_operations_agree(causal):
    query, key, value = _tensors()
    if causal:
        key, value = key[:, :, -QUERY:], value[:, :, -QUERY:]
    fast = attend(query, key, value, 0.3, causal=causal)
    plain = attend(query, key, value, 0.3, causal=causal, softcap=1e9)
    for found, wanted in zip(fast, plain, strict=True):
        assert torch.allclose(found, wanted, atol=1e-9)
