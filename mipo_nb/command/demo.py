"""A first result in a minute: some people answered before and after training, with a small adapter that is kept here."""

from mipo_nb import evaluation, generation, models, pairs, preferences, sources
from mipo_nb.lab import provenance

PEOPLE = 24  # whose wishes are counted; development users, none of whom training saw


def demo(shown=3, *, seed=0, say=print):
    """Answer `PEOPLE` before and after training with one draw each, `say` the first `shown` of them and how many wishes
    were kept in all. The people and prompts are drawn by `seed`; nobody chose them for their answers."""
    rows = sources.personal_prompts("dev", n=PEOPLE, seed=seed)
    sampling, kept, texts = generation.Sampling(0.7, 0.9, 50, 96, PEOPLE), {}, {}
    for name, folder in (("before", None), ("after", provenance.demo_adapter())):
        model, tokenizer = models.load(provenance.DEMO_MODEL, adapter=folder)
        drawn = generation.sample(model, tokenizer, pairs.positive_conversations(rows), sampling, seed=seed + 1)
        texts[name] = list(drawn["text"])
        kinds, matrix = evaluation.kept_matrix(rows, texts[name])
        kept[name] = matrix & evaluation.asked_matrix(rows, kinds)
    for i in range(min(shown, len(rows))):
        say(f"\n{rows[i]['context']}\n  {rows[i]['prompt']}")
        for name in texts:
            marks = ", ".join(preferences.KINDS[kinds[j]].asks for j in kept[name][i].nonzero()[0])
            say(f"\n  {name}: {texts[name][i]}\n    kept: {marks or 'none of the two wishes'}")
    total = sum(len(preferences.checkable(row["preferences"])) for row in rows)
    say(
        f"\nOf {total} wishes of {len(rows)} people: {kept['before'].sum()} kept before, {kept['after'].sum()} after. One draw each."
    )
    say("What that is worth, over many trainings and with its price: notebooks/12_measuring_personalization.ipynb.")
    say("Next: make run (the main notebooks, 25 minutes, 80 without fast bf16), or make lab.")
