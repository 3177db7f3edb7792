"""Options of a reply to a generation that has not begun: what they mean for one model."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from localspec.decode.generation import Generation, Limits
from localspec.engine.base import Vocabulary
from localspec.engine.constraint import Constraint, GrammarTokenizer
from localspec.errors import UserError
from localspec.sampling_fields import Sampling
from localspec.session.bias import with_biases
from localspec.session.config import ReplyOptions


class Generations:
    """Makes generations for a vocabulary and a context of `n_ctx` tokens."""

    def __init__(self, vocabulary: Vocabulary, n_ctx: int) -> None:
        self._vocabulary = vocabulary
        self._n_ctx = n_ctx

    def of(self, prompt: Sequence[int], options: ReplyOptions) -> Generation:
        """UserError for a prompt that is empty or longer than the context, and for options that
        contradict each other or do not fit the model."""
        if not prompt:
            raise UserError("the prompt is empty: give some text")
        if len(prompt) > self._n_ctx:
            raise UserError(
                f"the prompt has {len(prompt):,} tokens and the context holds {self._n_ctx:,}: "
                "use a larger --ctx"
            )
        return Generation(
            prompt,
            self.sampling(options),
            self._limits(options),
            options.verify,
            self._constraint(options, len(prompt)),
            options.likelihoods,
        )

    def sampling(self, options: ReplyOptions) -> Sampling:
        """With what the options say of single tokens, by their ids."""
        sampling = with_biases(options.sampling, options.logit_bias, self._vocabulary)
        if options.ignore_eos:
            sampling = replace(sampling, banned=sampling.banned | self._vocabulary.eog)
        return sampling

    def _limits(self, options: ReplyOptions) -> Limits:
        ends = frozenset[int]() if options.ignore_eos else self._vocabulary.eog
        return Limits(self._n_ctx, options.max_tokens, ends, options.min_tokens)

    def _constraint(self, options: ReplyOptions, n_prompt: int) -> Constraint | None:
        if options.grammar is None:
            return None
        if options.ignore_eos:
            raise UserError("a grammar says where a reply ends: leave --ignore-eos out")
        if options.min_tokens:
            raise UserError("a grammar says where a reply ends: leave min_tokens out")
        return Constraint.of(options.grammar, self._grammar_tokenizer, n_prompt)

    @cached_property
    def _grammar_tokenizer(self) -> GrammarTokenizer:
        return GrammarTokenizer(self._vocabulary)
