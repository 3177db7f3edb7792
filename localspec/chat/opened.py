"""Everything that a conversation needs of one loaded model."""

from collections.abc import Callable
from dataclasses import dataclass

from localspec.chat.archive import Record
from localspec.chat.states import States
from localspec.chat.transcript import Transcript
from localspec.model.facts import ModelFacts
from localspec.model.gguf import read_header
from localspec.session import Session, SessionConfig
from localspec.session.expectation import Expectation


@dataclass(frozen=True, slots=True)
class Opened:
    """A session with its transcript, its saved states and what it should reach here.

    `n_restored`: tokens of the conversation whose cache came from disk.
    """

    session: Session
    config: SessionConfig
    facts: ModelFacts
    transcript: Transcript
    states: States
    expectation: Expectation | None
    n_restored: int

    def close(self) -> None:
        """Free the models."""
        self.states.settle()
        self.session.close()


def open_model(
    config: SessionConfig,
    record: Record,
    talk: Callable[[str], None],
    on_progress: Callable[[float], None],
) -> Opened:
    """Load, and restore the conversation's cache where it was saved. Raises LocalspecError."""
    session = Session.open(config, talk, on_progress)
    try:
        facts = ModelFacts.of(read_header(config.model))
        vocabulary = session.target.vocabulary
        states = States(session)
        return Opened(
            session=session,
            config=config,
            facts=facts,
            transcript=Transcript(
                session.template, vocabulary, vocabulary.bos_text, facts.tokenizer.digest
            ),
            states=states,
            expectation=Expectation.of(session.plan.target, facts),
            n_restored=states.restore(record),
        )
    except BaseException:
        session.close()
        raise
