"""Faults that others had, each with the tests that would find it here: one that is renamed must be replaced."""

import ast
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

ENDPOINT, HOLDS = "chat/tests/test_endpoint.py", "billing/tests/test_holds.py"
CONCURRENCY = "billing/tests/test_concurrency.py"
CALLBACKS, POLLS = "billing/tests/payments/test_callbacks.py", "billing/tests/payments/test_polls.py"
CHANNELS = "billing/tests/payments/test_channels.py"
MODERATION, WINDOW = "chat/tests/test_moderation.py", "chat/tests/test_moderation_window.py"
SURVIVAL, CLIENT = "chat/tests/test_survival.py", "chat/tests/test_upstream_client.py"
HEALTH = "chat/tests/test_upstream_health.py"

FAULTS: Final[dict[str, list[str]]] = {
    # Who asks
    "GeekAI: the message route stands before authentication and takes the user from the body": [
        f"{ENDPOINT}::test_a_bad_token_is_login",
        f"{ENDPOINT}::test_no_object_of_another_user_is_reached",
    ],
    "Coze: one tenant is written into the source": [f"{ENDPOINT}::test_the_tenant_comes_from_the_app_id_too"],
    "Coze: a token is looked up without its tenant": [
        "tenants/tests/test_tokens.py::test_another_tenants_token_reads_like_none_at_all",
        "tenants/tests/test_api.py::test_another_tenants_token_opens_nothing_and_ends_nothing",
    ],
    "one-api: a cached copy makes a disabled token usable again": [
        "tenants/tests/test_tokens.py::test_a_revoked_token_is_refused_and_others_of_the_user_go_on",
        "tenants/tests/test_tokens.py::test_a_blocked_users_token_is_refused",
    ],
    # What comes in
    "OVINC: a replayed payment credits again": [
        f"{CHANNELS}::test_a_replayed_notification_is_taken_and_credits_nothing",
        f"{CHANNELS}::test_a_second_notification_of_the_same_payment_credits_nothing",
    ],
    "99AI: an order is selected, then updated, when two tell of it at once": [
        f"{CHANNELS}::test_polls_notifications_and_re_checks_at_once_credit_once",
        f"{POLLS}::test_a_notice_for_two_processes_is_one_event",
    ],
    "99AI, Coze: the amount that was paid is not compared": [
        f"{CHANNELS}::test_another_amount_credits_nothing",
        f"{CALLBACKS}::test_another_currency_credits_nothing",
        f"{CALLBACKS}::test_another_merchant_s_or_app_s_payment_credits_nothing",
    ],
    "Coze: a callback does not look at the order's state": [
        f"{CHANNELS}::test_notifications_out_of_order",
        f"{CHANNELS}::test_a_second_payment_of_a_paid_order_is_not_taken_silently",
    ],
    "new-api #1687, #3423: paid, and the notification never comes": [
        f"{CHANNELS}::test_a_payment_that_nobody_told_of_is_found",
        f"{POLLS}::test_the_user_asks_for_a_re_check",
    ],
    "one-api #2399: a redeem code used by many at once is credited to each": [
        "billing/tests/test_redeem.py::test_one_api_2399_fifty_users_use_one_code_at_once"
    ],
    "new-api #4302: a redeem code sent many times at once is credited each time": [
        "billing/tests/test_redeem.py::test_new_api_4302_one_user_sends_a_code_fifty_times_at_once"
    ],
    "sub2api: what a recharge brings leaks into what something costs": [
        f"{CALLBACKS}::test_clearing_is_what_was_collected_where_the_balance_is_another",
        "billing/tests/payments/test_plan_orders.py::test_a_plan_is_ordered_paid_and_good",
    ],
    "TIME-SEA: an advertisement's reward is a plain request of the client": [
        "billing/tests/rewards/test_bonuses.py::test_an_advertisement_is_rewarded_once",
        "billing/tests/rewards/test_bonuses.py::test_a_ticket_used_fifty_times_at_once_is_one",
        "billing/tests/rewards/test_bonuses.py::test_a_ticket_is_one_users",
    ],
    # What goes out
    "LiteLLM #34732, new-api: parallel starts are all admitted": [
        f"{CONCURRENCY}::test_fifty_starts_with_money_for_one",
        f"{CONCURRENCY}::test_twenty_users_and_a_wallet_for_two",
        f"{ENDPOINT}::test_money_for_one_of_fifty",
    ],
    "99AI, CoAI: a balance is read, reckoned and written; it is a float; it is taken from without a condition": [
        "billing/tests/test_ledger.py::test_a_balance_never_falls_below_what_is_frozen",
        "billing/tests/test_ledger.py::test_an_amount_is_a_bounded_positive_integer",
        f"{CONCURRENCY}::test_many_chats_of_two_users_never_wait_for_each_other_crosswise",
        "billing/tests/test_processes.py::test_processes_at_the_same_users_and_codes_leave_the_books_right",
    ],
    "TIME-SEA: after a sensitive word it goes on streaming": [
        f"{MODERATION}::test_a_forbidden_word_ends_the_answer_and_nothing_follows_it",
        f"{WINDOW}::test_nothing_of_a_blocked_word_goes_out_nor_anything_after_it",
    ],
    "new-api #5166, #5802: the output is not moderated, and 大麻烦 is hit for 大麻": [
        f"{WINDOW}::test_an_exception_goes_out_whole",
        "chat/tests/test_moderation_lists.py::test_an_exception_covers_the_word_within_it_alone",
        f"{MODERATION}::test_an_answer_that_is_refused_before_any_of_it_was_shown_costs_nothing",
    ],
    "GeekAI: an answer is free where the balance is short at its end": [
        f"{HOLDS}::test_a_charge_beyond_the_hold_takes_what_else_there_is",
        f"{HOLDS}::test_a_charge_beyond_everything_is_a_shortfall_not_a_debt",
    ],
    "LiteLLM: what has no price is not reserved for": [f"{HOLDS}::test_a_model_without_a_price_cannot_be_called"],
    "LiteLLM #33736, new-api #5287: a client that leaves is not charged, or in full": [
        f"{ENDPOINT}::test_a_client_that_hangs_up_gets_charged_what_was_reported_and_finds_it_whole",
        f"{SURVIVAL}::test_a_tenant_may_stop_what_nobody_reads",
    ],
    "new-api #3275, #2989, #4457: an empty reply is charged": [
        f"{ENDPOINT}::test_a_failure_before_any_output_costs_nothing"
    ],
    "new-api: what was taken in advance stays taken after a crash": [
        f"{SURVIVAL}::test_a_killed_server_leaves_what_was_kept_and_charges_no_more",
        f"{SURVIVAL}::test_a_server_killed_before_the_first_output_costs_nothing",
    ],
    "LiteLLM #35531: what could not be written is lost": [
        f"{SURVIVAL}::test_a_database_that_is_away_at_the_end_loses_nothing",
        f"{SURVIVAL}::test_a_spooled_turn_whose_hold_was_charged_at_its_checkpoint_is_put_right_once",
    ],
    "LiteLLM #4208, #14144: nobody is told which limit it was": [
        f"{ENDPOINT}::test_free_quota_then_102_where_paying_does_not_help",
        f"{ENDPOINT}::test_an_empty_wallet_of_the_tenant_is_102",
    ],
    "one-api #1257: an upstream is asked again within a request": [
        f"{CLIENT}::test_no_target_is_asked_twice_and_the_last_failure_is_told",
        f"{HEALTH}::test_an_account_is_asked_once_whatever_its_models",
    ],
    "new-api #4100: an upstream is disabled after one 429": [
        f"{HEALTH}::test_a_rest_without_a_word_is_short_and_grows",
        f"{HEALTH}::test_retry_after_is_honoured",
        f"{HEALTH}::test_an_ill_account_is_left_alone_until_it_is_well",
    ],
    "OVINC and others: secrets lie in the database, and pass through logs, in clear": [
        "tests/test_secrets_stay_secret.py::test_a_dump_shows_no_secret",
        "tests/test_secrets_stay_secret.py::test_no_log_shows_a_secret",
    ],
}


def names_in(path: str) -> set[str]:
    """Return the names of a file's tests, as pytest would collect them."""
    file = ROOT / path
    if not file.exists():
        return set()
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds)]
    return {name for name in functions if name.startswith("test_")}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_tests(fault: str) -> None:
    missing = [test for test in FAULTS[fault] if test.split("::")[1] not in names_in(test.split("::")[0])]
    assert (missing, FAULTS[fault] == []) == ([], False)
