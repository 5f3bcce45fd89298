"""What was billed, and what vendors say they would bill, to the last digit: usage as reported, through our readers.

Each row names where its figures were published. Where that is a list of prices or a formula, the tokens are ours and
the sum is what the list makes of them. Prices are those of litellm's file where it still has them; of models that are
gone, or where the source states others, they are written out (dollars for a million tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from llm_gateway.accounting import Price, Rates, Tier, TokenCounts, atto_usd_per_token, cost_nano_usd
from llm_gateway.prices import PriceFile
from llm_gateway.wire import anthropic_answer, openai_responses_answer, openai_usage

Json = dict[str, Any]  # usage objects of three formats
FILE = PriceFile()


def usd(**rates: str) -> Price:
    atto = {name: atto_usd_per_token(Decimal(rate)) for name, rate in rates.items()}
    return Price((Tier(Rates(**atto)),))


def chat(**usage: object) -> TokenCounts | None:
    return openai_usage.read_usage(usage)


def messages(**usage: object) -> TokenCounts | None:
    return anthropic_answer.read_usage(usage)


def responses(**usage: object) -> TokenCounts | None:
    return openai_responses_answer.read_usage(usage)


@dataclass(frozen=True)
class Invoice:
    """Who billed what for what. `price` is an entry of litellm's file, or rates."""

    source: str
    price: str | Price
    counts: TokenCounts | None
    dollars: str
    service: str | None = None


INVOICES = {
    "Anthropic's console: 4.614 cents written to the cache, 0.825 written": Invoice(
        source="github.com/BerriAI/litellm/issues/9812 (litellm said $0.091311)",
        price=usd(input="3", cache_write_5m="3.75", cache_write_1h="6", cached_input="0.3", output="15"),
        counts=messages(
            input_tokens=3, cache_creation_input_tokens=12304, cache_read_input_tokens=0, output_tokens=550
        ),
        dollars="0.054399",  # with the three tokens, 0.0009 cents, that the console's excerpt leaves out
    ),
    "the same call as litellm translates it": Invoice(
        source="github.com/BerriAI/litellm/issues/9812",
        price=usd(input="3", cache_write_5m="3.75", cache_write_1h="6", cached_input="0.3", output="15"),
        counts=chat(
            prompt_tokens=12307,
            completion_tokens=550,
            total_tokens=12857,
            cache_creation_input_tokens=12304,
            cache_read_input_tokens=0,
            prompt_tokens_details={"cached_tokens": 0, "cache_creation_tokens": 12304},
        ),
        dollars="0.054399",
    ),
    "Anthropic's worked example of an hour of coding": Invoice(
        source="Anthropic, Pricing, Managed Agents, worked example: $0.705, of which $0.08 for the hour",
        price="claude-opus-4-6",
        counts=messages(input_tokens=50_000, output_tokens=15_000),
        dollars="0.625",
    ),
    "the same with four fifths of it read from the cache": Invoice(
        source="Anthropic, Pricing, Managed Agents, worked example: $0.525, of which $0.08 for the hour",
        price="claude-opus-4-6",
        counts=messages(input_tokens=10_000, cache_read_input_tokens=40_000, output_tokens=15_000),
        dollars="0.445",
    ),
    "a cache of an hour costs twice the input": Invoice(
        source="github.com/earendil-works/pi/pull/5738 (it said $6.25)",
        price="claude-opus-4-8",
        counts=messages(
            input_tokens=0,
            output_tokens=0,
            cache_creation_input_tokens=1_000_000,
            cache_creation={"ephemeral_5m_input_tokens": 600_000, "ephemeral_1h_input_tokens": 400_000},
        ),
        dollars="7.75",
    ),
    "who does not say for how long wrote for five minutes": Invoice(
        source="github.com/earendil-works/pi/pull/5738",
        price="claude-opus-4-8",
        counts=messages(input_tokens=0, output_tokens=0, cache_creation_input_tokens=1_000_000),
        dollars="6.25",
    ),
    "fresh, read, written for an hour, and answered": Invoice(
        source="github.com/patrickbykov/claude-telemetry-widget/wiki/Cost: $0.130",
        price="claude-opus-5-5",
        counts=messages(
            input_tokens=2_000,
            cache_read_input_tokens=140_000,
            cache_creation_input_tokens=8_000,
            cache_creation={"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 8_000},
            output_tokens=1_500,
        ),
        dollars="0.130",
    ),
    "OpenAI's ordinary service": Invoice(
        source="github.com/defog-ai/defog/pull/303: 0.1275 cents",
        price="gpt-5-mini",
        counts=responses(
            input_tokens=2000,
            input_tokens_details={"cached_tokens": 1000},
            output_tokens=500,
            output_tokens_details={"reasoning_tokens": 200},
            total_tokens=2500,
        ),
        dollars="0.001275",
        service="default",
    ),
    "OpenAI's flex service, at half of it": Invoice(
        source="github.com/defog-ai/defog/pull/303: 0.06375 cents; github.com/BerriAI/litellm/issues/13810",
        price="gpt-5-mini",
        counts=chat(
            prompt_tokens=2000,
            prompt_tokens_details={"cached_tokens": 1000},
            completion_tokens=500,
            completion_tokens_details={"reasoning_tokens": 200},
            total_tokens=2500,
        ),
        dollars="0.0006375",
        service="flex",
    ),
    "OpenAI's o1, whose reasoning is output and whose cached input costs half": Invoice(
        source="community.openai.com/t/1099176 ($15, $7.50 and $60 a million)",
        price=usd(input="15", cached_input="7.50", output="60"),
        counts=chat(
            prompt_tokens=2006,
            prompt_tokens_details={"cached_tokens": 1920},
            completion_tokens=300,
            completion_tokens_details={"reasoning_tokens": 256},
            total_tokens=2306,
        ),
        dollars="0.03369",
    ),
    "sound costs sixteen times what text does": Invoice(
        source="OpenAI, model page of gpt-4o-audio-preview ($2.50/$10 text, $40/$80 audio); litellm#11560",
        price=usd(input="2.50", output="10", input_audio="40", output_audio="80"),
        counts=chat(
            prompt_tokens=1100,
            prompt_tokens_details={"audio_tokens": 600, "cached_tokens": 0},  # a minute of it
            completion_tokens=1250,
            completion_tokens_details={"audio_tokens": 1200},
            total_tokens=2350,
        ),
        dollars="0.12175",
    ),
    "Gemini above 200,000 tokens: all of the prompt at the higher rate": Invoice(
        source="github.com/NousResearch/hermes-agent/pull/93678: $1.00, 'matches provider bill'",
        price="gemini/gemini-3.1-pro-preview",
        counts=chat(prompt_tokens=250_000, completion_tokens=0, total_tokens=250_000),
        dollars="1.00",
    ),
    "Gemini at exactly 200,000 tokens: the lower one": Invoice(
        source="ai.google.dev/gemini-api/docs/pricing: 'prompts <= 200k tokens' $1.25, $10, cached $0.125",
        price="gemini/gemini-2.5-pro",
        counts=chat(
            prompt_tokens=200_000,
            prompt_tokens_details={"cached_tokens": 100_000},
            completion_tokens=1000,
            total_tokens=201_000,
        ),
        dollars="0.1475",
    ),
    "Gemini above it: prompt, cache and answer": Invoice(
        source="ai.google.dev/gemini-api/docs/pricing: 'prompts > 200k tokens' $2.50, $15, cached $0.25",
        price="gemini/gemini-2.5-pro",
        counts=chat(
            prompt_tokens=300_000,
            prompt_tokens_details={"cached_tokens": 100_000},
            completion_tokens=1000,
            total_tokens=301_000,
        ),
        dollars="0.54",
    ),
    "Gemini's thoughts, which only the total contains": Invoice(
        source="discuss.ai.google.dev/t/107349 (the prices are the poster's)",
        price=usd(input="1.25", cached_input="0.125", output="2.50"),
        counts=chat(
            prompt_tokens=11_500,
            prompt_tokens_details={"cached_tokens": 10_000},
            completion_tokens=1_000,
            total_tokens=22_500,
        ),
        dollars="0.030625",  # 0.001875 + 0.00125 + 0.0275
    ),
    "Gemini's ordinary service": Invoice(
        source="github.com/BerriAI/litellm/pull/37724: 7 and 205 tokens, $0.0018555",
        price="gemini/gemini-3.5-flash",
        counts=chat(prompt_tokens=7, completion_tokens=205, total_tokens=212),
        dollars="0.0018555",
    ),
    "Gemini's flex service, at half of it": Invoice(
        source="github.com/BerriAI/litellm/pull/37724",
        price="gemini/gemini-3.5-flash",
        counts=chat(prompt_tokens=7, completion_tokens=205, total_tokens=212),
        dollars="0.00092775",
        service="flex",
    ),
    "an embedding has a prompt and nothing else": Invoice(
        source="OpenAI, Pricing: text-embedding-3-small, $0.02 a million",
        price="text-embedding-3-small",
        counts=chat(prompt_tokens=8_191, completion_tokens=0, total_tokens=8_191),
        dollars="0.00016382",
    ),
}


@pytest.mark.parametrize("name", INVOICES)
def test_we_charge_what_was_billed(name: str) -> None:
    invoice = INVOICES[name]
    price = FILE.find(invoice.price).price() if isinstance(invoice.price, str) else invoice.price
    assert invoice.counts is not None
    cost = cost_nano_usd(price, invoice.counts, service=invoice.service)
    assert Decimal(cost) / 10**9 == Decimal(invoice.dollars), invoice.source
