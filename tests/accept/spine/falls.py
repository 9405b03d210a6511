"""bits_per_byte of local_val_rolling falls strictly over the steps: falls.py SCORES.json N_STEPS"""

import json
import sys

scores = json.load(open(sys.argv[1]))
curve = sorted((s["step"], s["value"]) for s in scores if s["task"] == "local_val_rolling" and s["metric"] == "bits_per_byte")
for step, value in curve:
    print(f"    step {step:5}  bits_per_byte {value:.4f}")
falls = all(later < earlier for (_, earlier), (_, later) in zip(curve, curve[1:]))
sys.exit(not (falls and len(curve) == int(sys.argv[2])))
