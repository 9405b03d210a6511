"""What happens where a device has too little memory: a smaller batch once and told, and a clear end where nothing helps."""

import json
import subprocess
import threading

from part import Broken, main, run
from tasks import prefill

GIANT = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 65536, "intermediate_size": 262144,
    "num_hidden_layers": 400, "num_attention_heads": 512, "vocab_size": 32000, "max_position_embeddings": 2048,
}
# Takes a card's memory but for so many bytes, once it is told to, and gives it back when its input ends.
HOG = """
import sys, torch
device = torch.device(sys.argv[1])
torch.zeros(1, device=device)
print("ready", flush=True)
held = []
for line in sys.stdin:
    free, _ = torch.cuda.mem_get_info(device)
    n = free - int(line)
    while n > 0:
        size = min(n, 1 << 30)
        held.append(torch.empty(size, dtype=torch.uint8, device=device))
        n -= size
    print(torch.cuda.mem_get_info(device)[0], flush=True)
"""
# Of Amber's shape such a batch takes 4.5 GB between the layers (the stream, its norm, gate, up and down), and a quarter of it 1.1.
BATCH_TOKENS = 65536
GIB = 1 << 30


class Hog:
    def __init__(self, told):
        self.process = subprocess.Popen([told.python, "-c", HOG, told.device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise Broken("the program that takes memory did not start")

    def leave(self, n_bytes):
        """Takes all but so many bytes; says how many are free then."""
        print(n_bytes, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def while_full(told, model, task, logs, left_bytes):
    """A task whose model is loaded before the memory gets scarce: (exit code, stderr, bytes that were free)"""
    command = [told.measure, "tasks", model, *told.how("bfloat16"), "--batch-tokens", BATCH_TOKENS, "--logs", logs, "--wait", task]
    child = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = []
    reader = threading.Thread(target=lambda: said.append(child.stderr.read()))
    reader.start()
    hog = Hog(told)
    if child.stdout.readline() != "loaded\n":
        hog.end()
        child.kill()
        reader.join()
        raise Broken(f"the model did not load: {said}")
    free = hog.leave(left_bytes)
    child.stdin.write("\n")
    child.stdin.close()
    child.stdout.read()
    code = child.wait()
    reader.join()
    hog.end()
    return code, said[0], free


def memory(told, part):
    giant = told.folder("giant")
    (giant / "config.json").write_text(json.dumps(GIANT))
    small = told.small_models()["run-step-003000"]
    task = told.task("copa")
    ran = run([told.measure, "tasks", giant, *told.how("bfloat16"), "--logs", giant, task], ends_well=False)
    part.check(f"a model that fits nowhere is refused with the numbers before it is read (exit {ran.code}): {last(ran.stderr)}",
               ran.code == 1 and "the model needs" in ran.stderr and "are available" in ran.stderr)
    huge = ["--batch-tokens", str(10**9)]
    ran = run([told.measure, "tasks", small, *told.how("float32"), *huge, "--limit", "4", "--logs", giant, task], ends_well=False)
    if not told.on_a_card:
        # Its batches grow with what there is to compute, not with what they may be.
        part.check(f"a batch of a billion tokens does no harm (exit {ran.code})", ran.code == 0)
        part.wants_a_card("a smaller batch where memory gets scarce, and a clear end where that is not enough")
        return
    part.check(f"a batch of a billion tokens is refused with what is possible (exit {ran.code}): {last(ran.stderr)}",
               ran.code == 1 and "--batch-tokens" in ran.stderr and "2^31" in ran.stderr)
    folder, _, _ = told.generated("amber")
    long, logs = prefill(told, 96), told.folder("logs-memory")
    code, stderr, free = while_full(told, folder, long, logs, 3 * GIB)
    part.check(f"{free / 1e9:.1f} GB left for batches of {BATCH_TOKENS} tokens: a smaller one, told (exit {code})",
               code == 0 and "from here on they have" in stderr)
    part.figure("told", last(stderr))
    code, stderr, free = while_full(told, folder, long, logs, GIB // 2)
    part.check(f"{free / 1e9:.1f} GB left: it ends with what to do (exit {code}): {last(stderr)}",
               code == 1 and "--batch-tokens" in stderr and "lacks memory" in stderr)
    hog = Hog(told)
    free = hog.leave(10 * GIB)
    ran = run([told.measure, "tasks", folder, *told.how("bfloat16"), "--logs", logs, long], ends_well=False)
    hog.end()
    part.check(f"{free / 1e9:.1f} GB free: the model is refused with the numbers (exit {ran.code}): {last(ran.stderr)}",
               ran.code == 1 and "the model needs" in ran.stderr and "are available" in ran.stderr)
    ran = run([told.measure, "tasks", small, *told.how("float32"), "--limit", "4", "--logs", logs, task])
    part.check("the card computes on behind all that", ran.code == 0)


def last(stderr):
    found = [line for line in stderr.splitlines() if line.strip()]
    return found[-1][:300] if found else ""


if __name__ == "__main__":
    main(memory)
