"""The tests that ran on each engine, by module: engines.py NAME=LOG ...

Every test of the registry's library and of the integration tests is run on each engine, whether it opens a database or
not. A log is what libtest printed. The last engine's tests are those that count; the logs of the others may have more. Ends
with 1 when one of them did not run on every engine.
"""

import collections
import re
import sys

ran = {}
for argument in sys.argv[1:]:
    engine, path = argument.split("=", 1)
    with open(path, errors="replace") as log:
        # What a test prints may stand before its line.
        ran[engine] = set(re.findall(r"test (\S+) \.\.\. ok$", log.read(), re.MULTILINE))

counted = ran[engine]
modules = collections.defaultdict(collections.Counter)
for engine, tests in ran.items():
    for test in tests & counted:
        modules[test.rpartition("::")[0]][engine] += 1
width = max(map(len, modules), default=0)
print(" " * width, *(f"{engine:>10}" for engine in ran))
for module in sorted(modules):
    print(f"{module:<{width}}", *(f"{modules[module][engine]:>10}" for engine in ran))
print(f"{'all':<{width}}", *(f"{len(tests & counted):>10}" for tests in ran.values()))

missing = sorted(counted - set.intersection(*ran.values()))
for test in missing:
    print(f"not on every engine: {test}")
sys.exit(not counted or bool(missing))
