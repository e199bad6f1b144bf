"""The engine that asks servers: what it sends, how it reads what comes back, what it keeps, and where it stops."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chat_server
from chat_server import KEY, Handler, Server, completion
from imprint.engines import Prompt, _openai_forms, _openai_wire, openai
from imprint.engines import _job as reaching
from imprint.engines._openai_kept import Answer, Kept, Purse
from imprint.runtime import servers
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_manifest
from imprint.runtime.servers import Access, Limits

LIMITS = Limits.model_validate({})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openai_wire, "WAITS", (0.0, 0.01, 0.01))
    monkeypatch.setattr(_openai_wire, "PATIENCE", 5.0)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that says the user's words in capitals."""
    with chat_server.serving(lambda asked: completion(asked["messages"][-1]["content"].upper())) as server:
        yield server


Start = Callable[..., openai.Engine]


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Start:
    """The engine of the server, with these limits; engines of one test share what is kept."""

    def engine(batch: int = 32, key: str = KEY, **limits: Any) -> openai.Engine:
        access = Access(key_env="THEIR_KEY" if key else None, limits=Limits.model_validate(limits))
        return openai.Engine(_openai_wire.Server("models.far", server.url, "m-1", key, access), batch, tmp_path)

    return engine


def prompt(engine: openai.Engine, text: str = "so?", most: int = 8, **how: Any) -> Prompt:
    return Prompt(engine.render([{"role": "user", "content": text}]).text, most, **how)


# What is sent


def test_a_request_says_all_that_the_prompt_says(start: Start, server: Server) -> None:
    engine = start()
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "“<|im_end|>”"}]
    seed = 2**40 + 5
    how: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "seed": seed, "stop": ("a", "", "b", "c", "d", "e")}
    engine.generate([Prompt(engine.render(messages).text, 9, **how)])
    assert server.asked == [
        {
            "model": "m-1", "messages": messages, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 5,
            "stop": ["a", "b", "c", "d"],
        }
    ]  # fmt: skip
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    engine.generate([prompt(engine, seed=3, opening="x", before=4)])
    assert server.asked[1] == {
        "model": "m-1", "messages": [{"role": "user", "content": "so?"}], "max_tokens": 12, "temperature": 0.0,
        "logprobs": True,
    }  # fmt: skip
    start(key="").generate([prompt(engine, "no key")])
    assert "Authorization" not in server.headers[2]


@pytest.mark.parametrize(
    ("messages", "prefill", "how", "said"),
    [
        ([{"role": "user", "content": "a"}], "So", {"opening": "x", "before": 3}, "the end of a turn that it begins"),
        ([{"role": "user", "content": "a"}], "So.\n", {"stop": ("\n",)}, "the end of a turn that it begins"),
        ([], "Once", {}, "text without turns"),
    ],
)
def test_what_the_interface_cannot_say_ends_the_job(
    start: Start, server: Server, messages: Any, prefill: str, how: dict[str, Any], said: str
) -> None:
    engine = start()
    asked = [prompt(engine), Prompt(engine.render(messages, prefill).text, 8, **how)]
    with pytest.raises(ImprintError, match=f"models.far: a server is asked with whole turns, and .* {said}"):
        engine.generate(asked)
    assert not server.asked, "nothing was paid for"


@pytest.mark.parametrize(
    ("said", "text", "error"),
    [
        ("You are a cook.", " a cook.", None),
        ("\n You are a cook.", " a cook.", None),
        ("A cook.", None, "the answer does not begin with the words that were asked for, 'You are'"),
        ("", None, "the answer does not begin"),
    ],
)
def test_a_server_is_told_how_to_begin(
    said: str, text: str | None, error: str | None, start: Start, server: Server
) -> None:
    server.says = lambda asked: completion(said)
    engine = start()
    turns: Any = [{"role": "user", "content": "Who?"}]
    (response,) = engine.generate([Prompt(engine.render(turns, " You are ").text, 8)])
    assert response.text == text and (error or "None") in str(response.error)
    (asked,) = server.asked
    (message,) = asked["messages"]
    assert message["content"].startswith("Who?\n\n") and message["content"].endswith("\n\nYou are")
    assert asked["max_tokens"] == 8 + len(" You are ")
    turns.append({"role": "assistant", "content": "I."})
    engine.generate([Prompt(engine.render(turns, "You").text, 8)])
    assert [one["role"] for one in server.asked[1]["messages"]] == ["user", "assistant", "user"]


def test_a_server_that_has_renamed_the_limit_is_asked_by_its_new_name(start: Start, server: Server) -> None:
    error = {"message": "Unsupported: use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "x"}
    server.faults = [(400, {}, json.dumps({"error": error}).encode())]
    engine = start(at_once=1)
    assert [one.text for one in engine.generate([prompt(engine, text) for text in "ab"])] == ["A", "B"]
    assert [sorted(set(one) & {"max_tokens", "max_completion_tokens"}) for one in server.asked] == [
        ["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"],
    ]  # fmt: skip
    asked = len(server.asked)
    start().generate([prompt(engine, "a")])
    assert len(server.asked) == asked, "an answer is found by what was asked, however it was spelled"


# What comes back


def one(start: Start, server: Server, said: Any, **how: Any) -> Any:
    server.says = lambda asked: said
    engine = start()
    (response,) = engine.generate([prompt(engine, **how)])
    return response


def test_an_answer_with_its_tokens(start: Start, server: Server) -> None:
    response = one(start, server, completion("Yes, or no.", finish_reason="length"))
    assert (response.text, response.finish_reason, response.error) == ("Yes, or no.", "length", None)
    assert (response.prompt_tokens, response.response_tokens, response.answer_tokens) == (7, 3, 3)
    assert response.logprob_sum is None and response.seconds > 0


def test_it_ends_at_stop_texts_that_the_server_was_not_told(start: Start, server: Server) -> None:
    stops = ("1", "2", "3", "4", "or")
    response = one(start, server, completion("Yes, or no.", finish_reason="length"), stop=stops)
    assert (response.text, response.finish_reason) == ("Yes, ", "stop")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (completion("Y", finish_reason="content_filter"), "content filter has ended the answer"),
        (completion(None, finish_reason="tool_calls"), "does not say that the answer is whole .*'tool_calls'"),
        (completion("Y", finish_reason=None), "does not say that the answer is whole .*None"),
        (completion("Y", usage={"prompt_tokens": 1, "completion_tokens": 9}), "9 tokens, and at most 8"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_an_error(
    start: Start, server: Server, said: Any, why: str
) -> None:
    response = one(start, server, said)
    assert response.text is None and response.finish_reason is None
    assert re.search(why, response.error)
    assert response.prompt_tokens is not None, "it has cost something"
    asked = len(server.asked)
    one(start, server, completion("Another"))
    assert len(server.asked) == asked, "the first answer is the record"


def test_empty_answers_and_other_models_are_told(
    start: Start, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter([completion("", model="m-1-2026"), completion(None, model="m-1-2026"), completion("x", model=None)])
    server.says = lambda asked: next(said)
    engine = start(at_once=1)
    found = engine.generate([prompt(engine, text) for text in "abc"])
    assert [(one.text, one.finish_reason) for one in found] == [("", "stop"), ("", "stop"), ("x", "stop")]
    told = capsys.readouterr().err
    assert "models.far: asked for 'm-1', the server answers as 'm-1-2026'" in told
    assert "asked for 'm-1', the server does not say which model answers" in told
    assert "2 of 3 answers are empty" in told
    engine.generate([prompt(engine, text) for text in "ab"])
    assert "answers as" not in capsys.readouterr().err, "a name is told once"


def pieces(*texts: str) -> dict[str, Any]:
    return {"content": [{"token": text, "bytes": list(text.encode()), "logprob": -1.0} for text in texts]}


@pytest.mark.parametrize(
    ("said", "total", "most", "before", "text", "reason", "own"),
    [
        (("a ", "[A]", " b", " c"), 5, 4, 3, "a [A] b c", "stop", 3),
        (("a ", "[A]", " b", " c"), 5, 2, 3, "a [A] b c", "length", 2),
        (("a ", "[A]", " b", " c"), 4, 1, 3, "a [A] b", "length", 1),
        (("a ", "[", "A]", " b"), 4, 2, 3, "a [A] b", "stop", 1),
        (("a ", "b ", "c ", "d"), 5, 2, 3, "a b ", "length", 2),
        (("a", " b"), 3, 5, 3, "a b", "stop", 3),
    ],
)
def test_the_answer_behind_an_opening_is_cut_at_its_own_limit(
    said: tuple[str, ...], total: int, most: int, before: int, text: str, reason: str, own: int
) -> None:
    asked = Prompt(json.dumps({"messages": [], "prefill": ""}), most, opening="[A]", before=before)
    answer = Answer(
        text="".join(said), finish_reason="stop", model="m", prompt_tokens=1, response_tokens=total,
        pieces=[list(one.encode()) for one in said], cost=1, seconds=0.0,
    )  # fmt: skip
    response = openai.response(asked, answer)
    assert (response.text, response.finish_reason, response.answer_tokens) == (text, reason, own)


def test_without_tokens_an_opening_is_an_error(start: Start, server: Server) -> None:
    response = one(start, server, completion("a [A] b"), opening="[A]", before=3)
    assert response.text is None and "tells no tokens (logprobs)" in response.error
    with_tokens = completion("a [A] b", logprobs=pieces("a ", "[A]", " b"))
    assert one(start, server, with_tokens, opening="[A]", before=4).answer_tokens == 1


# Faults that pass


def hang(handler: Handler) -> None:
    time.sleep(0.8)


def cut(handler: Handler) -> None:
    handler.reply(200, {"Content-Length": "500"}, json.dumps(completion("half"))[:40].encode())


def drip(handler: Handler) -> None:
    handler.reply(200, {"Content-Length": "500"}, b"")
    for _ in range(40):
        handler.wfile.write(b" ")
        time.sleep(0.05)


PASSING = {
    "too many": (429, {"Retry-After": "0"}, b"{}"),
    "too many, by a date": (429, {"Retry-After": formatdate(0, usegmt=True)}, b"{}"),
    "broken": (500, {}, b"<html>oops</html>"),
    "busy": (503, {}, b""),
    "hangs": hang,
    "is cut off": cut,
    "drips": drip,
    "is gone": lambda handler: None,
    "says nonsense": (200, {}, b"<html>"),
    "says half": (200, {}, b'{"choices": [{"message": {"content": "ha'),
    "says no choice": (200, {}, b'{"choices": []}'),
    "says a number": (200, {}, b'{"choices": [{"message": {"content": 5}}]}'),
    "says an error": (200, {}, b'{"error": {"message": "overloaded"}}'),
    "packs": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08"),
    "nests": (200, {}, b"[" * 100_000),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_passed_over(
    fault: str, start: Start, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_openai_wire, "PATIENCE", 0.4)
    server.faults = [PASSING[fault]]
    engine = start()
    (response,) = engine.generate([prompt(engine)])
    assert (response.text, response.error) == ("SO?", None) and len(server.asked) == 2
    assert server.asked[0] == server.asked[1]


def test_retry_after_holds_all_requests(start: Start, server: Server) -> None:
    server.faults = [(429, {"Retry-After": "0.5"}, b"{}")]
    engine = start(at_once=1)
    engine.generate([prompt(engine, text) for text in "abc"])
    first, second, *_ = server.times
    assert second - first >= 0.45 and len(server.times) == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("nan", 0.0), ("inf", float("inf")), ("", 0.0), ("x", 0.0)],
)
def test_what_retry_after_says(text: str, seconds: float) -> None:
    assert _openai_forms.retry_after(text) == seconds


@given(st.text())
def test_any_retry_after_is_read(text: str) -> None:
    assert _openai_forms.retry_after(text) >= 0


def test_a_date_says_seconds_too() -> None:
    assert 50 < _openai_forms.retry_after(formatdate(time.time() + 60, usegmt=True)) <= 61


# Faults that stay


STAYING = [
    ((401, {}, b'{"error": {"message": "no"}}'), "says 401: no; set THEIR_KEY to a key that this server takes"),
    ((403, {}, b"{}"), "says 403.*THEIR_KEY"),
    (
        (404, {}, b'{"error": "gone"}'),
        r"says 404: gone; does it know a model 'm-1' \(`openai:`\).*/v1/chat/completions",
    ),
    ((402, {}, b""), "no credit left"),
    (
        (429, {}, b'{"error": {"message": "quota", "code": "insufficient_quota"}}'),
        "quota; the account has no credit left",
    ),
    ((429, {"Retry-After": "9999"}, b""), "asked again in 9999 s; the answers so far are kept"),
    (
        (302, {"Location": "http://127.0.0.1:1/evil"}, b""),
        r"sends on to http://127.0.0.1:1/evil \(302\); write the address",
    ),
    ((418, {}, b"tea"), "says 418: tea; that is no answer of a chat"),
]


@pytest.mark.parametrize(("fault", "said"), STAYING)
def test_a_fault_that_stays_ends_the_job_and_says_what_to_do(
    fault: Any, said: str, start: Start, server: Server
) -> None:
    server.faults = [fault]
    engine = start(at_once=1)
    with pytest.raises(ImprintError, match=rf"models\.far: the server at http://127\.0\.0\.1:\d+/v1 .*{said}"):
        engine.generate([prompt(engine, text) for text in "abc"])
    assert len(server.asked) == 1, "nobody else is asked"


def test_a_server_that_is_not_there(start: Start, server: Server) -> None:
    engine = start()
    server.server_close()
    with pytest.raises(
        ImprintError, match=r"gives no answer: no connection .*is `base_url` right.* 4 times; the answers"
    ):
        engine.generate([prompt(engine)])


def test_a_server_that_never_recovers_ends_the_job_and_loses_nothing(start: Start, server: Server) -> None:
    says = server.says
    engine = start(at_once=1)
    server.says = lambda asked: says(asked) if asked["messages"][0]["content"] in "ab" else (500, {}, b"oops")
    with pytest.raises(ImprintError, match="says 500: oops, and so 4 times; the answers so far are kept"):
        engine.generate([prompt(engine, text) for text in "abcd"])
    server.says = says
    server.asked.clear()
    found = start().generate([prompt(engine, text) for text in "abcd"])
    assert [one.text for one in found] == ["A", "B", "C", "D"]
    assert sorted(one["messages"][0]["content"] for one in server.asked) == ["c", "d"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ((400, {}, b'{"error": {"message": "too long"}}'), "the server says 400: too long"),
        ((422, {}, b'{"detail": "no"}'), 'the server says 422: {"detail": "no"}'),
        ((200, {}, b"nonsense"), "it is no answer of a chat"),
        ((200, {}, b'{"choices": [{"message": {"content": "\\ud800"}}]}'), "it is no answer of a chat"),
    ],
)
def test_a_request_that_is_not_answered_costs_nobody_else(bad: Any, why: str, start: Start, server: Server) -> None:
    says = server.says
    server.says = lambda asked: bad if asked["messages"][0]["content"] == "b" else says(asked)
    engine = start()
    found = engine.generate([prompt(engine, text) for text in "abc"])
    assert [one.text for one in found] == ["A", None, "C"] and why in str(found[1].error)


def test_a_giant_body_is_not_read(start: Start, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openai_wire, "MOST_BYTES", 1 << 20)
    sent = []

    def giant(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": str(1 << 40)}, b"")
        for _ in range(1 << 12):
            sent.append(handler.wfile.write(b" " * (1 << 16)))

    server.faults = [giant]
    engine = start()
    (response,) = engine.generate([prompt(engine)])
    assert "larger than 1 MiB" in str(response.error) and engine._lost > 0, "it may have cost something"
    time.sleep(0.2)
    assert sum(sent) < 1 << 26, "the connection is closed"


# How much is asked


def test_no_more_requests_are_open_than_the_limit(start: Start, server: Server) -> None:
    def slow(asked: Any) -> Any:
        time.sleep(0.05)
        return completion("x")

    server.says = slow
    engine = start(at_once=3)
    engine.generate([prompt(engine, str(number)) for number in range(12)])
    assert server.most_open == 3 and len(server.asked) == 12


def test_requests_keep_their_pace_through_calls_and_retries(start: Start, server: Server) -> None:
    server.faults = [(500, {}, b"")]
    engine = start(batch=2, per_minute=600)
    engine.generate([prompt(engine, text) for text in "ab"])
    start(per_minute=600).generate([prompt(engine, text) for text in "cd"])
    gaps = [later - sooner for sooner, later in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 4 and min(gaps) > 0.08


def test_equal_requests_are_sent_once(start: Start, server: Server) -> None:
    engine = start()
    assert len({one.text for one in engine.generate([prompt(engine, seed=seed) for seed in range(5)])}) == 1
    assert len(server.asked) == 1, "a greedy request has no seed"
    engine.generate([prompt(engine, temperature=1.0, seed=seed) for seed in (1, 2, 1)])
    assert [one["seed"] for one in server.asked[1:]] in ([1, 2], [2, 1])


def test_the_limit_of_tokens_is_not_passed(start: Start, server: Server) -> None:
    spend = {"prompt_tokens": 100, "completion_tokens": 8}
    server.says = lambda asked: completion("x", usage=spend)
    engine = start(at_once=4, tokens=500)
    asked = [prompt(engine, str(number)) for number in range(10)]
    with pytest.raises(ImprintError, match=r"models\.far\.limits\.tokens: the limit is 500 tokens; [34]\d\d are spent"):
        engine.generate(asked)
    before = len(server.asked)
    assert before * 108 <= 500 and engine.kept.cost() == before * 108
    with pytest.raises(ImprintError, match="was not sent"):
        start(tokens=500).generate(asked)
    assert len(server.asked) <= 500 // 108, "another job goes on counting"
    start(tokens=5000).generate(asked)
    assert len(server.asked) == 10


def test_what_may_have_been_paid_for_an_answer_that_was_lost_counts(start: Start, server: Server) -> None:
    engine = start(tokens=600)
    most = engine._most(engine.request(prompt(engine)))
    server.faults = [cut, cut]
    engine.generate([prompt(engine)])
    assert engine._lost == 2 * most
    server.says = lambda asked: completion("x", usage=None)
    engine.generate([prompt(engine, "two")])
    assert engine.kept.cost() == 10 + most, "a server that counts nothing may have spent the most"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.integers(0, 300))
def test_a_purse_never_spends_more_than_its_limit(requests: list[tuple[int, int]], limit: int) -> None:
    purse, spent = Purse(limit, 0, "x"), 0
    for most, part in requests:
        try:
            purse.take(most)
        except ImprintError:
            assert spent + most > limit
            continue
        cost = min(most, part)
        purse.give_back(most - cost)
        spent += cost
        assert purse.spent == spent <= limit


# What is kept


def test_what_was_answered_is_never_asked_again(start: Start, server: Server, tmp_path: Path) -> None:
    engine = start()
    found = engine.generate([prompt(engine, text) for text in "abc"])
    again = start(batch=1).generate([prompt(engine, text) for text in "cba"])
    assert again[::-1] == found and len(server.asked) == 3
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 3
    record = json.loads(files[0].read_text())
    assert record["request"] in server.asked and record["base_url"] == server.url
    assert KEY not in "".join(path.read_text() for path in files)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"base_url": 1}', "other"])
def test_a_broken_file_is_told_and_asked_again(
    broken: str, start: Start, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = start()
    engine.generate([prompt(engine)])
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text().replace('"so?"', '"no?"') if broken == "other" else broken)
    assert start().generate([prompt(engine)])[0].text == "SO?" and len(server.asked) == 2
    assert f"{path} is no answer to what was asked; it is asked again" in capsys.readouterr().err
    assert start().generate([prompt(engine)])[0].text == "SO?" and len(server.asked) == 2


def test_answers_of_other_servers_and_models_are_others(tmp_path: Path) -> None:
    request = {"model": "m"}
    paths = {Kept(url, model, tmp_path).path(request) for url in ("http://a/v1", "http://b/v1") for model in "mn"}
    assert len(paths) == 4 and all(path.is_relative_to(tmp_path) for path in paths)
    assert Kept("http://../../x", "../../..", tmp_path).path(request).parent.parent.parent == tmp_path


def test_two_jobs_ask_in_turns(start: Start, server: Server) -> None:
    def slow(asked: Any) -> Any:
        time.sleep(0.05)
        return completion("x")

    server.says = slow
    engines = [start(at_once=2), start(at_once=2)]
    asked = [prompt(engines[0], str(number)) for number in range(6)]
    threads = [threading.Thread(target=engine.generate, args=(asked,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_open <= 2 and len(server.asked) == 6, "the second job finds what the first has asked"


def test_an_interrupted_job_keeps_what_is_under_way(
    start: Start, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(at_once=2)
    under_way = threading.Event()
    says = server.says

    def slow(asked: Any) -> Any:
        under_way.set()
        time.sleep(0.3)
        return says(asked)

    server.says = slow

    class Broken(openai.ThreadPoolExecutor):
        def submit(self, *args: Any) -> Any:
            future = super().submit(*args)
            if len(server.asked) >= 2 or under_way.wait(0.2):
                raise KeyboardInterrupt
            return future

    monkeypatch.setattr(openai, "ThreadPoolExecutor", Broken)
    with pytest.raises(KeyboardInterrupt):
        engine.generate([prompt(engine, text) for text in "abcdef"])
    monkeypatch.undo()
    monkeypatch.setattr(_openai_wire, "WAITS", (0.0,))
    asked = len(server.asked)
    assert 1 <= asked <= 2
    start().generate([prompt(engine, text) for text in "abcdef"])
    assert len(server.asked) == 6


# Reaching a model


@pytest.fixture
def reach(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    monkeypatch.setenv("THEIR_KEY", KEY)
    monkeypatch.setenv(servers.TOLD, "{}")
    servers.tell({"far-01234567": Access(key_env="THEIR_KEY", limits=LIMITS)})
    out = tmp_path / "far-01234567" / "manifest.json"

    def run() -> Path:
        reaching.run(reaching.Spec(openai="m-1", base_url=server.url), out)
        return out

    return run


def test_a_model_is_reached_before_the_long_jobs(
    reach: Callable[[], Path], server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = reach()
    assert server.asked == [{"model": "m-1", "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 16}]
    assert read_manifest(manifest)["kind"] == "server" and KEY not in manifest.read_text()
    assert "models.far: the server answers, by 'm-1'" in capsys.readouterr().err
    first = manifest.read_text()
    server.says = lambda asked: completion("other", model="else")
    assert reach().read_text() == first, "what it says is no part of its identity"
    monkeypatch.chdir(manifest.parent)
    engine = openai.start([manifest], "bfloat16", "server", 3)
    assert (engine.batch_size, engine.server.key) == (3, KEY)
    assert engine.name == f"openai m-1 at {server.url}" and KEY not in repr(engine.server)


@pytest.mark.parametrize("fault", [STAYING[0], STAYING[2], STAYING[6]])
def test_a_model_that_is_not_reached_leaves_no_manifest(
    fault: Any, reach: Callable[[], Path], server: Server, tmp_path: Path
) -> None:
    server.faults = [fault[0]]
    with pytest.raises(ImprintError, match=fault[1]):
        reach()
    server.faults = [(400, {}, b"no chat")]
    with pytest.raises(ImprintError, match="does not answer a short question: the server says 400: no chat"):
        reach()
    assert not list(tmp_path.rglob("*.json"))


def test_a_key_is_told_by_its_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(key_env="THEIR_KEY")
    monkeypatch.delenv("THEIR_KEY", raising=False)
    with pytest.raises(
        ImprintError, match=r"models\.far\.key_env: the environment variable THEIR_KEY is not set; set it"
    ):
        servers.key(access, "far")
    for broken in (" ", "a\nb", "a b", "é"):
        monkeypatch.setenv("THEIR_KEY", broken)
        with pytest.raises(ImprintError, match=r"THEIR_KEY (is not set|holds no key)") as caught:
            servers.key(access, "far")
        assert broken.strip() == "" or broken not in str(caught.value)
    monkeypatch.setenv("THEIR_KEY", f" {KEY}\n")
    assert servers.key(access, "far") == KEY and servers.key(Access(), "far") == ""


def test_other_jobs_get_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", KEY)
    monkeypatch.setenv(servers.TOLD, "{}")
    with pytest.raises(ImprintError, match="no config has said how the model 'far-1' is asked"):
        servers.access("far-1")
    servers.tell({"far-1": Access(key_env="THEIR_KEY"), "near-2": Access()})
    servers.drop_keys()
    assert "THEIR_KEY" not in os.environ and servers.access("far-1").key_env == "THEIR_KEY"
