"""The composition root: a model, perhaps a drafter, replies; `localspec.api` is the front door.

config = SessionConfig.of(Path("model.gguf"), spec="lookup")
with Session.open(config) as session:
    prompt = session.chat_prompt([Message(role="user", content="Hello")])
    reply = session.reply(prompt, ReplyOptions(max_tokens=100))
    for text in reply:
        print(text, end="")
    print(reply.timings.decode_tps, reply.stats.tokens_per_pass)
"""
