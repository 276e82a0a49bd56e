"""Which environment variable holds the key of which provider, by the first part of a LiteLLM model string."""

from __future__ import annotations

from collections.abc import Mapping

#: As LiteLLM 1.106 reads them (`litellm.validate_environment`); of several names for one provider, the first.
KEY_NAMES: Mapping[str, str] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "groq": "GROQ_API_KEY",
    "xai": "XAI_API_KEY",
    "cohere": "COHERE_API_KEY",
    "together_ai": "TOGETHERAI_API_KEY",
    "fireworks_ai": "FIREWORKS_AI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "azure": "AZURE_API_KEY",
}

#: Servers of the user's own, whose answers cost nothing.
LOCAL = ("ollama", "ollama_chat", "hosted_vllm", "lm_studio", "llamafile")


def provider_of(model: str) -> str:
    """The provider in a model string; LiteLLM takes a bare `gpt-...` or `claude-...` for its maker's."""
    name, slash, _ = model.partition("/")
    if slash:
        return name
    return "anthropic" if model.startswith("claude") else "openai"
