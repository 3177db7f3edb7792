"""Opens who answers: a model that is loaded here, or one that a server has."""

from localspec.chat.archive import Record
from localspec.chat.loading import LoadedModel, Partner
from localspec.chat.remote import Elsewhere, RemoteModel
from localspec.chat.states import States
from localspec.dialogue.transcript import Transcript
from localspec.forecast.forecast import Expectation
from localspec.notify import Notify, Progress
from localspec.session.chat_template import NO_TEMPLATE
from localspec.session.config import SessionConfig
from localspec.session.session import Session


def open_model(
    where: SessionConfig | Elsewhere, record: Record, notify: Notify, on_progress: Progress
) -> Partner:
    """Load a model, or ask a server for its own. Raises LocalspecError."""
    if isinstance(where, SessionConfig):
        return load_model(where, record, notify, on_progress)
    return RemoteModel.of(where)


def load_model(
    config: SessionConfig, record: Record, notify: Notify, on_progress: Progress
) -> LoadedModel:
    """Load, and restore the conversation's cache if it was saved. Raises LocalspecError."""
    session = Session.open(config, notify, on_progress, talks=True)
    try:
        facts = session.plan.facts
        if session.prompts.template is None:
            notify(NO_TEMPLATE)
        states = States(session)
        return LoadedModel(
            session=session,
            config=config,
            transcript=Transcript(session.prompts, facts.tokenizer.digest, session.markup),
            states=states,
            expectation=Expectation.of(session.plan.target, facts),
            n_restored=states.restore(record),
        )
    except BaseException:
        session.close()
        raise
