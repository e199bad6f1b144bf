# Jobs whose model runs on a server. They need the network and no GPU, so they run on the machine that runs the workflow.
localrules:
    generate_on_server,
    judge_on_server,
    synthesize_on_server,


use rule generate as generate_on_server with:
    wildcard_constraints:
        arm=of("generate", "arm", on_server=True),
    resources:
        device="server",
        scores=stage["generate"].scores,


use rule judge as judge_on_server with:
    wildcard_constraints:
        eval=of("judge", "eval", on_server=True),
    resources:
        device="server",


use rule synthesize as synthesize_on_server with:
    wildcard_constraints:
        dataset=of("synthesize", "dataset", on_server=True),
    resources:
        device="server",
        scores=stage["synthesize"].scores,
