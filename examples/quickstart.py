"""Pack passages for two questions and read the account.

python examples/quickstart.py
"""

from ragpack import ContextPacker, Passage

PASSAGES = [
    Passage(
        "a", "Ferries leave at eight. The lighthouse was first lit in 1871.", title="Port Ansel"
    ),
    Passage(
        "b", "It has six labs. The long tank is 38 metres from end to end.", title="Merrow Hill"
    ),
]


def main() -> None:
    """The second question finds both passages in the store."""
    with ContextPacker("recomp-extractive", store="memory://", top_n=1) as packer:
        for question in ("How long is the tank?", "When was the lighthouse lit?"):
            packed = packer.pack(question, PASSAGES)
            packer.flush()
            print(question)
            print(packed.text)
            for row in packed.report.passages:
                print(f"  {row.id}: {row.tokens_in} -> {row.tokens_out} tokens, {row.cache}")


if __name__ == "__main__":
    main()
