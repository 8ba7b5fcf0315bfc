"""Self-distillation by TRL's experimental trainer, its responses written by `decoding` and its frozen layers packed."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns that it may change; the pin on TRL holds it

from trl.experimental.sdft import SDFTConfig, SDFTTrainer  # noqa: E402

from mipo_nb.engine import decoding, own_forward, packing, plain_decoding, routes  # noqa: E402
from mipo_nb.engine.linear import PackedTraining  # noqa: E402
from mipo_nb.engine.trainers import OneGPU, WithoutThoughts, require_private  # noqa: E402

require_private(
    {SDFTTrainer: ("_forward_logits", "_generate", "sample_rollouts")}
)  # overridden below, and no promise of TRL's


def arguments(common, **numbers):
    """An `SDFTConfig` from `arguments.trainer_arguments`: one response to each prompt, by the current policy; the teacher is
    the model without its adapter. The divergence is TRL's: Jensen-Shannon's over the student's 100 likeliest tokens."""
    return SDFTConfig(**common, num_generations=1, max_prompt_length=None, **numbers)


class SelfDistillation(WithoutThoughts, PackedTraining, OneGPU, SDFTTrainer):
    """`SDFTTrainer` with all its arguments and losses, of responses that do not think aloud. Models that cannot be packed
    write by transformers' `generate`."""

    def sample_rollouts(self, inputs):
        return self._masked(super().sample_rollouts(inputs))

    def _generate(self, prompt_ids):
        policy = self.accelerator.unwrap_model(self.model)
        if not routes.packs_by_default(policy):
            with plain_decoding.without_defaults(policy):
                return super()._generate(prompt_ids)
        sampling = decoding.Sampling(self.temperature, 1.0, 0, self.max_completion_length)
        responses = decoding.decode(policy, prompt_ids, sampling, set(self.eos_token_ids))
        return prompt_ids, [tokens for tokens, _ in responses]

    def _forward_logits(self, model, *args, **kwargs):
        base = packing.without_adapter_shell(self.accelerator.unwrap_model(model))
        return super()._forward_logits(own_forward.padded_on_the_left(model, base), *args, **kwargs)
