"""The views of the database, in SQL. They join what the tables hold once, and hold nothing themselves: the texts of a
gated dataset stay in its own file."""

from __future__ import annotations

VERDICTS = """
-- Each answer to a question of the config, with the two means that it compares.
create view verdicts as
select q.question, q.kind, q.arm, q.control, q.eval, q.metric, q.verdict, q.scope, q.difference, q.ci_low, q.ci_high,
       q.n_pairs, q.n_missing, q.n_seeds, a.mean as arm_mean, b.mean as control_mean, q.wins, q.losses, q.ties
from answers q
left join summary a on (a.arm, a.eval, a.metric) = (q.arm, q.eval, q.metric)
left join summary b on (b.arm, b.eval, b.metric) = (q.control, q.eval, q.metric)
"""

RESPONSES = """
-- One row per response and eval that scores it: what was asked and said, the text that was scored, and the value of the
-- eval's primary metric.
-- If options are scored, there is one row per example, and the response is the option that the score has chosen.
create view responses as
with valued as (
    select s.arm, s.seed, s.eval, s.example_id, s.sample, avg(s.value) as value, bool_or(s.truncated) as truncated,
           string_agg(distinct s.status, ', ' order by s.status) as status
    from scores s
    join evals e on s.eval = e.eval and s.metric = e.primary_metric
    group by all
), chosen as (
    select arm, seed, eval, example_id, sample, item
    from scores
    where metric = 'picked' and value = 1
), said as (
    select g.arm, g.seed, e.eval, g.example_id, g.sample, g.prompt_sha256, g.response, g.error,
           coalesce(t.text, g.response) as scored_answer
    from generations g
    join evals e on g.eval = e.responses
    left join scored_texts t on (t.arm, t.seed, t.eval, t.example_id, t.sample)
        = (g.arm, g.seed, e.eval, g.example_id, g.sample)
    where e.asks = 'generate' and (g.final or g.error is not null)
    union all
    select v.arm, v.seed, v.eval, v.example_id, v.sample, g.prompt_sha256, g.response, g.error, g.response
    from valued v
    join evals e on v.eval = e.eval
    left join chosen c on (c.arm, c.seed, c.eval, c.example_id, c.sample)
        = (v.arm, v.seed, v.eval, v.example_id, v.sample)
    left join generations g on g.final and (g.arm, g.seed, g.eval, g.example_id, g.sample)
        = (c.arm, c.seed, e.responses, c.example_id, c.item)
    where e.asks = 'loglikelihood'
), asked as (
    select dataset, example_id, reference, cluster,
           [message.content for message in messages if message.role = 'user'][-1] as question
    from datasets
), shown as (
    select prompt_sha256, any_value(prompt) as prompt
    from prompts
    group by prompt_sha256
)
select r.arm, r.seed, r.eval, r.example_id, r.sample, a.question, p.prompt, r.response, r.scored_answer, a.reference,
       e.primary_metric as metric, v.value, v.status, v.truncated, r.error, a.cluster
from said r
join evals e on r.eval = e.eval
left join valued v on (v.arm, v.seed, v.eval, v.example_id, v.sample) = (r.arm, r.seed, r.eval, r.example_id, r.sample)
left join asked a on a.dataset = e.dataset and a.example_id = r.example_id
left join shown p on p.prompt_sha256 = r.prompt_sha256
"""

VIEWS = (VERDICTS, RESPONSES)
