"""``POST /v1/chat/completions``: packs documents into a conversation and asks the upstream."""

import json
from typing import Any

from fastapi import Request, Response

from ragpack.models.prompt import context_text
from ragpack.report import PackedContext
from ragpack.service.access import CallerOf, EngineOf, UpstreamOf
from ragpack.service.admission import admit
from ragpack.service.caller import Caller
from ragpack.service.chat.account import Account
from ragpack.service.chat.context import question_of, with_context
from ragpack.service.chat.relay import Relay, unless_gone
from ragpack.service.engine import Engine
from ragpack.service.problems import Problem, said
from ragpack.service.results import facts_of
from ragpack.service.routing import guarded
from ragpack.service.schemas import ChatRequest

__all__ = ["chat_completions", "router"]

router = guarded("chat")

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The upstream's answer; its errors keep their status and body too.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}


@router.post(
    "/chat/completions",
    summary="Chat over packed documents",
    response_class=Response,
    responses=_ANSWERS | said(404, 502, 504),
)
async def chat_completions(
    asked: ChatRequest, request: Request, engine: EngineOf, upstream: UpstreamOf, caller: CallerOf
) -> Response:
    """OpenAI's chat completions, with documents (or the name of an index) beside the messages.

    They are packed for the user's last message and put before it. The answer, streamed or whole,
    has ``context_tokens_saved`` in its usage, and the account of every passage in ``ragpack``. A
    request without documents passes through as it is.
    """
    account, body = None, await request.body()
    if asked.wants_context:
        packed = await engine.run(_pack, asked, engine, caller)
        account, body = Account(packed), _body(asked, packed)
    elif not asked.is_plain:
        body = _body(asked)
    reply = await unless_gone(request, upstream.ask(body, request.state.request_id))
    return reply if isinstance(reply, Response) else Relay(reply, account)


def _pack(asked: ChatRequest, engine: Engine, caller: Caller) -> PackedContext:
    if asked.documents is not None and asked.index is not None:
        raise Problem(422, "ConfigError", "give either documents or index, not both")
    question, limits = question_of(asked.messages), engine.settings.limits
    packer = engine.packer(asked.ragpack, caller)
    passages = admit(question, asked.documents or [], caller, limits)
    if asked.index is not None:
        passages = engine.indexes.search(caller.namespace, asked.index, question, asked.ragpack.k)
    packed = packer.pack(question, passages, budget=asked.ragpack.budget)
    caller.facts.update(facts_of(packed.report))
    return packed


def _body(asked: ChatRequest, packed: PackedContext | None = None) -> bytes:
    fields = asked.forwarded
    if packed is not None:
        fields["messages"] = with_context(fields["messages"], context_text(packed))
    return json.dumps(fields).encode()
