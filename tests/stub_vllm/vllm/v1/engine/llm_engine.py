from vllm import Running


class LLMEngine:
    from_engine_args = Running
