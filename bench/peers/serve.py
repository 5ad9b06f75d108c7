"""What the peers in Python share: prompts in buckets of one length, so that nothing is padded, and calls on stdin.

Every line of stdin is a call, {"prompts": [[id, …], …], "answer": id, "against": id, "rows": whether they are wanted}; every
line of stdout an answer, {"seconds": …, "cpu": seconds of all threads, "rows": [[attribution, …], …] or null, "peak": bytes}.
"""

import json
import resource
import sys
import time
from collections import defaultdict

import torch

BATCH_TOKENS = 4096


def bucketed(model, prompts, answer, against):
    """model.attribute(ids [batch, pos], answer, against) → [batch, components], over prompts of any lengths"""
    buckets = defaultdict(list)
    for i, ids in enumerate(prompts):
        buckets[len(ids)].append(i)
    rows = [None] * len(prompts)
    for length, members in buckets.items():
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            found = model.attribute(torch.tensor([prompts[i] for i in part]), answer, against)
            for i, row in zip(part, found):
                rows[i] = row
    return torch.stack(rows)


def serve(load, threads):
    torch.set_num_threads(threads)
    with torch.inference_mode():
        model = load()
        for line in sys.stdin:
            call = json.loads(line)
            start, cpu = time.perf_counter(), time.process_time()
            rows = bucketed(model, call["prompts"], call["answer"], call["against"])
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            rows = rows.tolist() if call.get("rows") else None
            print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": rows, "peak": peak}), flush=True)
