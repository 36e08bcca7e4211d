"""Placeholder until bench_fault_latency's output is known."""


def run(context):
    return []
