"""Texts as sparse vectors."""

from hypothesis import given
from hypothesis import strategies as st

from vectoracl import words


@given(st.text(), st.text())
def test_a_chunks_weights_depend_on_its_text_alone(text: str, other: str) -> None:
    before = words.weights(text)
    words.weights(other)
    assert words.weights(text) == before
    assert list(before) == sorted(before) == words.places(text)
    assert all(0 < weight <= 2.2 * len(words.words(text)) for weight in before.values())


def test_words_are_caseless_and_of_any_script() -> None:
    assert words.places("Apple APPLE apple") == words.places("apple")
    assert words.places("Straße") == words.places("STRASSE")
    assert len(words.places("кот 数 a_1")) == 3
    assert words.weights("…") == {}
    assert words.places("\ud800") == []


def test_weights_are_bm25s_term_frequency_against_a_fixed_length() -> None:
    (once,) = words.weights("a").values()
    assert once == round(2.2 / (1 + 1.2 * (0.25 + 0.75 / 128)), 4)
    long = words.weights("a a a b " + "c " * 500)
    assert long[words.place("a")] > long[words.place("b")]
    assert long[words.place("b")] < words.weights("b x")[words.place("b")]  # beside others it weighs less
    assert all(0 < weight < 2.2 for weight in long.values())
    # The longest text of one word each that a record of any of our stores takes: no weight is rounded to nothing.
    assert min(words.weights(" ".join(f"{number:x}" for number in range(50_000))).values()) > 0.001


@given(st.lists(st.sampled_from("a b c d e f ß数"), max_size=30).map(" ".join), st.text("abcdß数 ", max_size=60))
def test_a_score_is_the_sum_of_the_weights_of_the_words_asked_for(text: str, query: str) -> None:
    held = words.weights(text)
    wanted = round(sum(held.get(one, 0.0) for one in words.places(query)), 4)
    assert words.score(words.words(query), text) == wanted
    many = [*words.words(query), *(f"none{number}" for number in range(20))]
    assert words.score(many, text) == wanted
    assert (wanted > 0) is bool(set(words.words(query)) & set(words.words(text)))


def test_words_that_are_texts_of_their_own_are_not_kept_in_memory() -> None:
    before = words._known.cache_info().currsize
    for number in range(50):
        word = f"{number:02}" + "x" * 1_000
        assert words.place(word) == words.place(word) < 1 << 32
    assert words._known.cache_info().currsize == before
    assert words.place("y" * 32) != words.place("y" * 33)
