"""The server through unmodified Python clients: openai and litellm. Started by clients.ts: clients.py URL KEY.

Every check prints a line; the first that fails ends the run with 1. The model is called `tiny`, its adapter `fa`.
"""

import asyncio
import os
import sys

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False")

import litellm  # noqa: E402
import openai  # noqa: E402

litellm.suppress_debug_info = True
URL, KEY = sys.argv[1:3]
BASE = f"{URL.rstrip('/')}/v1"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
SURE = {"temperature": 0, "max_tokens": 24, "seed": 1}


def check(name: str, holds: bool, seen: object = "") -> None:
    print(f"{'ok    ' if holds else 'FAILED'} {name}{'' if holds else f': {seen!r}'}", flush=True)
    if not holds:
        raise SystemExit(1)


def refused(kind: type[Exception], call) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def with_openai() -> None:
    client = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0)
    chat = lambda **more: client.chat.completions.create(  # noqa: E731
        **{"model": "tiny", "messages": MESSAGES, **SURE, **more}
    )
    models = {model.id: model for model in client.models.list()}
    check("openai models", set(models) == {"tiny", "fa", "lora"} and models["fa"].parent == "tiny", models)
    whole = chat()
    text = whole.choices[0].message.content
    check("openai chat", whole.usage.completion_tokens <= 24 and whole.choices[0].finish_reason in ("length", "stop"), whole)
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("openai stream = whole answer", streamed == text, (streamed, text))
    check("openai usage of a stream", chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, chunks[-1])
    other = chat(model="fa").choices[0].message.content
    check("openai adapter by its name", other != text, other)
    scored = chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    check("openai logprobs", len(scored) == whole.usage.completion_tokens and all(len(t.top_logprobs) == 3 for t in scored), scored)
    check("openai n", len({c.index for c in chat(n=3, temperature=1).choices}) == 3)
    drawn = [chat(temperature=1, top_p=0.9, presence_penalty=0.5).choices[0].message.content for _ in range(2)]
    check("openai seed", drawn[0] == drawn[1], drawn)
    stop = text[3:6]
    check("openai stop", chat(stop=[stop]).choices[0].message.content == text[: text.index(stop)], text)
    echoed = client.completions.create(model="tiny", prompt="once upon", max_tokens=0, echo=True, logprobs=1)
    report = echoed.choices[0].logprobs
    check("openai echo", echoed.choices[0].text == "once upon" and report.token_logprobs[0] is None, echoed)
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=MESSAGES, **SURE)
    check("openai request id", bool(raw.headers.get("x-request-id")))
    check("openai 404", refused(openai.NotFoundError, lambda: chat(model="none")))
    check("openai 400", refused(openai.BadRequestError, lambda: chat(temperature=9)))
    stranger = openai.OpenAI(base_url=BASE, api_key="wrong", max_retries=0)
    check("openai 401", refused(openai.AuthenticationError, lambda: stranger.models.list()))
    asyncio.run(with_async_openai(text))


async def with_async_openai(text: str) -> None:
    client = openai.AsyncOpenAI(base_url=BASE, api_key=KEY, max_retries=0)
    ask = lambda: client.chat.completions.create(model="tiny", messages=MESSAGES, **SURE)  # noqa: E731
    answers = await asyncio.gather(*(ask() for _ in range(16)))
    check("openai 16 at once", all(a.choices[0].message.content == text for a in answers), answers)


def with_litellm() -> None:
    call = {"model": "openai/tiny", "api_base": BASE, "api_key": KEY, "messages": MESSAGES, **SURE}
    whole = litellm.completion(**call)
    text = whole.choices[0].message.content
    check("litellm chat", bool(text) and whole.usage.completion_tokens <= 24, whole)
    streamed = "".join(c.choices[0].delta.content or "" for c in litellm.completion(**call, stream=True))
    check("litellm stream = whole answer", streamed == text, (streamed, text))
    other = litellm.completion(**{**call, "model": "openai/fa"}).choices[0].message.content
    check("litellm adapter by its name", other != text, other)
    legacy = litellm.text_completion(
        model="text-completion-openai/tiny", prompt="once upon", api_base=BASE, api_key=KEY, **SURE
    )
    check("litellm text completion", bool(legacy.choices[0].text), legacy)
    again = asyncio.run(litellm.acompletion(**call)).choices[0].message.content
    check("litellm asynchronous", again == text, again)
    check("litellm 404", refused(litellm.NotFoundError, lambda: litellm.completion(**{**call, "model": "openai/none"})))
    check("litellm 400", refused(litellm.BadRequestError, lambda: litellm.completion(**{**call, "temperature": 9})))
    check("litellm 401", refused(litellm.AuthenticationError, lambda: litellm.completion(**{**call, "api_key": "no"})))


print(f"openai {openai.__version__}, litellm {__import__('importlib.metadata').metadata.version('litellm')}")
with_openai()
with_litellm()
