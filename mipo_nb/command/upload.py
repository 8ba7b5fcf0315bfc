"""An exported folder on the hub: a private repository, and only when asked for."""

from mipo_nb.base.errors import UserError


def require_id(name):
    """Raise `UserError` for what is no id of a repository on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(f"{name!r} is no id of a repository on the hub; write it as in you/name.") from None


def upload(folder, name):
    """Upload a folder to a private repository of the hub. Raises `UserError` where the hub refuses or is not there, or where
    it is stopped."""
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        api = HfApi()
        name = api.create_repo(name, private=True, exist_ok=True).repo_id  # with the owner, should that be left out
        if not api.repo_info(name).private:
            raise UserError(
                f"{folder} is written, but {name} is public; upload it yourself, or name another repository."
            )
        return f"Uploaded: {api.upload_folder(repo_id=name, folder_path=folder)}"
    except KeyboardInterrupt:
        raise UserError(
            f"Stopped. {folder} is written; {name} may have a part of it. 'hf upload {name} {folder}' goes on."
        ) from None
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, HTTPError, OSError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise UserError(
            f"{folder} is written, but {name} on the hub does not take it ({reason}); run 'hf auth login'."
        ) from None
