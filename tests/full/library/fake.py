"""A model for lm-eval that knows nothing: its answers follow from a hash of what is asked, as those of the evaluator's example
`library` do."""

import hashlib
import re

from lm_eval.api.model import LM


def chance(*parts):
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return int(digest[:12], 16) / (1 << 48)


class Fake(LM):
    def loglikelihood(self, requests):
        def answer(context, continuation):
            log_likelihood = -0.5 - chance("ll", context, continuation) * len(continuation) / 3.0
            return log_likelihood, chance("greedy", context, continuation) < 0.3

        return [answer(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests):
        return [-chance("rolling", request.args[0]) * len(request.args[0]) for request in requests]

    def generate_until(self, requests):
        def said(prompt):
            numbers = re.findall("[0-9]+", prompt)
            words = [word for word in prompt.split(" ") if word]

            def pick(name, n):
                return int(chance(name, prompt) * n)

            number = numbers[pick("number", len(numbers))] if numbers else "7"
            kinds = [
                f"Let me see.\n#### {number}.",
                f"the answer is ${number},000.50",
                f" {words[pick('word', len(words))]} ",
                "December 1972",
                f"#### -{number}, or {number}",
                "none at all",
            ]
            return kinds[pick("kind", 6)]

        return [said(request.args[0]) for request in requests]
