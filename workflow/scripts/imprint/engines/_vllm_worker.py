"""`python _vllm_worker.py ASKED TOLD PARENT`: vLLM, in the process that `imprint.engines._vllm_process` starts.

It runs in vLLM's own environment. So it imports the standard library, vLLM, and one module of the package that needs no
more than that. ASKED and TOLD are the numbers of open file descriptors. The parent asks through the first, this process
tells through the second, a JSON object a line. PARENT is the parent's id; this process ends with it.

    told   {"version", "device", "memory"}               once vLLM is imported; bytes of a GPU, 0 on a CPU
    asked  {"folder", "dtype", ...}                      the model; see `engine`
    told   {"limit", "used"}                             once it is loaded: the most tokens of a prompt and its response
    asked  {"prompts": [[place, ids, most, temperature, top_p, seed], ...]}
    told   {"drawn": [[place, token, logprob], ...]}     after each step, and each time
    asked  {"ended": [place, ...]}                       the prompts whose responses are complete
    asked  {"options": [[place, ids, tail], ...]}        how likely is the `tail` whose last token follows `ids`
    told   {"scored": [[place, logprob], ...]}           after each step, until all are scored
    asked  {"weights": folder}                           the weights of a checkpoint in a folder, in place of its own
    told   {"renewed": true}                             once they are loaded

The end of ASKED ends this process. An error is told as {"error"}, and ends it too."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

Tell = Callable[..., None]

GREEDY = 1e-5
"""vLLM takes the likeliest token at lower temperatures."""


def main(asked: TextIO, tell: Tell) -> None:
    """Load the model that the first line of `asked` names, and answer the other lines."""
    import vllm
    from vllm.platforms import current_platform

    device = current_platform.device_type
    tell(
        version=vllm.__version__,
        device=device,
        memory=0 if device == "cpu" else current_platform.get_device_total_memory(),
    )
    if not (first := asked.readline()):
        return
    order = json.loads(first)
    running = engine(**order)
    tell(limit=running.model_config.max_model_len, used=used(device, order["ranks"]))
    for line in asked:
        question = json.loads(line)
        # Which prompts begin like earlier ones would depend on what was answered before a job was resumed.
        if not running.reset_prefix_cache():
            raise RuntimeError("vLLM keeps the prompts of the last batch")
        if "weights" in question:
            running.collective_rpc("reload_weights", kwargs={"weights_path": question["weights"]})
            if device == "cpu":
                running.collective_rpc(pack_heads)
            tell(renewed=True)
        elif "prompts" in question:
            write(running, question["prompts"], asked, tell)
        else:
            score(running, question["options"], tell)


def engine(
    folder: str,
    dtype: str,
    device: str,
    sequences: int,
    reads: int,
    cache_bytes: int,
    share: float | None,
    ranks: int,
) -> Any:
    """vLLM's engine on the weights in a folder. `sequences` are written together, and one pass reads up to `reads`
    tokens. Keys and values have `cache_bytes` on each of the `ranks`. vLLM begins only where `share` of a GPU's memory
    is free.

    All that could let equal runs differ is set here, or in the environment (`_vllm_process`). Scheduling is in this
    process and in step with the answers. The size of the cache decides which sequences must wait, so it is not left to
    the memory that happens to be free. Kernels are not tuned by their times. No code is compiled, since the compiler
    chooses by times too. On a GPU, the passes that write are replayed from CUDA graphs, which hold the same kernels."""
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    of_device = {"enforce_eager": True} if device == "cpu" else {"gpu_memory_utilization": share}
    return LLMEngine.from_engine_args(
        EngineArgs(
            model=folder,
            skip_tokenizer_init=True,
            dtype=dtype,
            load_format="safetensors",
            generation_config="vllm",
            trust_remote_code=False,
            seed=0,
            max_model_len=-1,  # the model's positions, or as many as the cache holds
            max_num_seqs=sequences,
            max_num_batched_tokens=reads,
            async_scheduling=False,
            enable_prefix_caching=True,
            kv_cache_memory_bytes=cache_bytes,
            tensor_parallel_size=ranks,
            compilation_config={"mode": 0, "cudagraph_mode": "NONE" if device == "cpu" else "FULL_DECODE_ONLY"},
            kernel_config={"enable_flashinfer_autotune": False},
            logprobs_mode="raw_logprobs",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **of_device,
        )
    )


def pack_heads(worker: Any) -> None:
    """Pack a worker's output layers again. On a CPU vLLM multiplies by a packed copy of a weight. It packs anew what it
    reloads, but not an output layer that shares its weight with the embedding."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in worker.model_runner.get_model().modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def used(device: str, ranks: int) -> dict[str, Any]:
    """What the job's record says of the device (`job_record.used`). vLLM has taken all its memory by now; that
    of several GPUs is held by other processes."""
    if device == "cpu":
        return {"device": device}
    import torch
    from vllm.platforms import current_platform

    names = [current_platform.get_device_name(number) for number in range(ranks)]
    memory = {"peak_gpu_memory_bytes": torch.cuda.max_memory_allocated()} if ranks == 1 else {}
    return {"device": device, "gpu_names": names, **memory}


def write(running: Any, prompts: list[list[Any]], asked: TextIO, tell: Tell) -> None:
    """Continue prompts, a token each in a step. The parent says after each step which of them have ended."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    for place, ids, most, temperature, top_p, seed in prompts:
        drawn = temperature >= GREEDY
        how = SamplingParams(
            max_tokens=most,
            temperature=float(drawn),
            top_p=top_p if drawn else 1.0,
            seed=seed if drawn else None,
            logprobs=0,  # that of the token itself
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        how.temperature = temperature if drawn else 0.0  # the constructor lets none be below 0.01
        running.add_request(str(place), {"prompt_token_ids": ids}, how)
    while running.has_unfinished_requests():
        drawn = [
            [int(output.request_id), token, logprobs[token].logprob]
            for output in running.step()
            for token, logprobs in zip(output.outputs[0].token_ids, output.outputs[0].logprobs, strict=True)
        ]
        tell(drawn=drawn)
        running.abort_request([str(place) for place in json.loads(asked.readline())["ended"]])


def score(running: Any, options: list[list[Any]], tell: Tell) -> None:
    """The log-likelihood of each tail. `ids` are the prompt and the tail without its last token, so the last token is
    the one that follows, and the others stand in the prompt."""
    from vllm import SamplingParams

    tails = {}
    for place, ids, tail in options:
        tails[str(place)] = tail
        how = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0 if len(tail) > 1 else None,
            logprob_token_ids=[tail[-1]],
            detokenize=False,
        )
        running.add_request(str(place), {"prompt_token_ids": ids}, how)
    while running.has_unfinished_requests():
        scored = []
        for output in running.step():
            *read, last = tails[output.request_id]
            total = output.outputs[0].logprobs[0][last].logprob
            if read:
                of_prompt = output.prompt_logprobs[-len(read) :]
                total += sum(logprobs[token].logprob for token, logprobs in zip(read, of_prompt, strict=True))
            scored.append([int(output.request_id), total])
        tell(scored=scored)


if __name__ == "__main__":
    # Behind all others, so that no script of the project stands for a module of vLLM's environment.
    sys.path.append(str(Path(__file__).parents[2]))
    from imprint.runtime.parents import end_with

    end_with(int(sys.argv[3]))
    with (
        open(int(sys.argv[1]), encoding="utf-8") as questions,
        open(int(sys.argv[2]), "w", encoding="utf-8") as answers,
    ):

        def say(**message: Any) -> None:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

        try:
            main(questions, say)
        except Exception as error:
            traceback.print_exc()
            say(error=f"{type(error).__name__}: {error}")
            sys.exit(1)
