"""How an arm is asked, in the form of a job's spec."""

from __future__ import annotations

from imprint.config import graph
from imprint.config.schema import Config
from imprint.dag.experiment import plug
from imprint.policies import policy


def policy_of(config: Config, arm: str, applied: bool = True) -> policy.Spec:
    """The policy of an arm. Without `applied`, its `apply` does not count: so teachers and judges are asked. The device
    is no part of a policy."""
    apply = config.arms[arm].apply
    return policy.Spec(
        engine=graph.engine_of(config, arm),
        dtype=config.engine.dtype,
        batch_size=config.engine.batch_size,
        hooks=[plug(ref) for ref in apply.hooks] if applied else [],
        contexts=[plug(ref) for ref in apply.context] if applied else [],
        decode=plug(apply.decode) if applied and apply.decode else None,
    )
