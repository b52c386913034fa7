"""The store dies and comes back while chains go on asking."""

import time

from langchain_core.documents import Document

from ragpack.retrievers.langchain import PackedRetriever

NOTES = [Document("Apples keep. Rain fell."), Document("More Apples.")]
KEPT = ["Apples keep.", "More Apples."]


def ask(packed: PackedRetriever) -> list[str]:
    documents = packed.invoke("Apples")
    assert [document.page_content for document in documents] == KEPT
    return [document.metadata["ragpack"]["cache"] for document in documents]


def test_redis_killed_in_the_middle(redis_server, shelf, make_packer, keyword):
    packer = make_packer(keyword, store=redis_server.url)
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=packer)
    assert ask(packed) == ["miss", "miss"]
    packer.flush()
    assert ask(packed) == ["hit", "hit"]
    redis_server.kill()
    assert ask(packed) == ["unavailable", "unavailable"]
    packer.flush()
    redis_server.start()
    end = time.monotonic() + 60
    while set(ask(packed)) != {"hit"}:  # the store is given another try after a while
        assert time.monotonic() < end, "the store is back, and nobody asks it"
        packer.flush()
        time.sleep(0.1)
