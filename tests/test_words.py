"""Texts as sparse vectors."""

from hypothesis import given
from hypothesis import strategies as st

from vectoracl.text import sparse_words


@given(st.text(), st.text())
def test_a_chunks_weights_depend_on_its_text_alone(text: str, other: str) -> None:
    before = sparse_words.weights(text)
    sparse_words.weights(other)
    assert sparse_words.weights(text) == before
    assert list(before) == sorted(before) == sparse_words.token_indices(text)
    assert all(0 < weight <= 2.2 * len(sparse_words.words(text)) for weight in before.values())


def test_words_are_caseless_and_of_any_script() -> None:
    assert sparse_words.token_indices("Apple APPLE apple") == sparse_words.token_indices("apple")
    assert sparse_words.token_indices("Straße") == sparse_words.token_indices("STRASSE")
    assert len(sparse_words.token_indices("кот 数 a_1")) == 3
    assert sparse_words.weights("…") == {}
    assert sparse_words.token_indices("\ud800") == []


def test_weights_are_bm25s_term_frequency_against_a_fixed_length() -> None:
    (once,) = sparse_words.weights("a").values()
    assert once == round(2.2 / (1 + 1.2 * (0.25 + 0.75 / 128)), 4)
    long = sparse_words.weights("a a a b " + "c " * 500)
    assert long[sparse_words.token_index("a")] > long[sparse_words.token_index("b")]
    assert long[sparse_words.token_index("b")] < sparse_words.weights("b x")[sparse_words.token_index("b")]
    assert all(0 < weight < 2.2 for weight in long.values())
    # The longest text of one word each that a record of any of our stores takes: no weight is rounded to nothing.
    assert min(sparse_words.weights(" ".join(f"{number:x}" for number in range(50_000))).values()) > 0.001


@given(st.lists(st.sampled_from("a b c d e f ß数"), max_size=30).map(" ".join), st.text("abcdß数 ", max_size=60))
def test_a_score_is_the_sum_of_the_weights_of_the_words_asked_for(text: str, query: str) -> None:
    held = sparse_words.weights(text)
    wanted = round(sum(held.get(one, 0.0) for one in sparse_words.token_indices(query)), 4)
    assert sparse_words.score(sparse_words.words(query), text) == wanted
    many = [*sparse_words.words(query), *(f"none{number}" for number in range(20))]
    assert sparse_words.score(many, text) == wanted
    assert (wanted > 0) is bool(set(sparse_words.words(query)) & set(sparse_words.words(text)))


def test_words_that_are_texts_of_their_own_are_not_kept_in_memory() -> None:
    before = sparse_words._known.cache_info().currsize
    for number in range(50):
        word = f"{number:02}" + "x" * 1_000
        assert sparse_words.token_index(word) == sparse_words.token_index(word) < 1 << 32
    assert sparse_words._known.cache_info().currsize == before
    assert sparse_words.token_index("y" * 32) != sparse_words.token_index("y" * 33)
