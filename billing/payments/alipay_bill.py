"""Alipay's bill of a day: a ZIP of files in GBK, from an address that is good for 30 seconds.

Source: https://opendocs.alipay.com/open/204/105681 (what stands in a bill of trades).
"""

import csv
import io
import zipfile
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from billing.payments.clients import client_for
from billing.payments.provider import BillLine, ProviderAwayError
from billing.yuan import parse_yuan

MOST_BYTES: Final = 64 * 1024 * 1024


def bill_lines(url: str) -> list[BillLine]:
    """Return the trades and refunds of the bill at an address; raise ProviderAwayError where there is none to read."""
    try:
        return list(_read(_trades(_download(url))))
    except (IndexError, ValueError, zipfile.BadZipFile, csv.Error) as fault:
        raise ProviderAwayError(f"a bill that is not readable: {type(fault).__name__}") from None


def _download(url: str) -> bytes:
    # Alipay names an address without encryption, and answers with it at the same place.
    url = urlsplit(url)._replace(scheme=urlsplit(settings.ALIPAY_GATEWAY_URL).scheme).geturl()
    packed = bytearray()
    try:
        with client_for(settings.ALIPAY_GATEWAY_URL).stream("GET", url) as answer:
            for piece in answer.iter_bytes():
                packed += piece
                if len(packed) > MOST_BYTES:
                    raise ProviderAwayError("a bill that is too long")
            if not answer.is_success:
                raise ProviderAwayError(f"status {answer.status_code}")
    except httpx.HTTPError as fault:
        raise ProviderAwayError(type(fault).__name__) from None
    return bytes(packed)


def _trades(packed: bytes) -> str:
    """Return the file of single trades: beside it there is one of sums."""
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        for entry in files.infolist():
            if entry.file_size > MOST_BYTES:
                raise ProviderAwayError("a bill that is too long")
            text = files.read(entry).decode("gb18030")
            if "商户订单号" in text and "业务类型" in text:
                return text
    raise ValueError("a bill without its file of trades")


def _read(text: str) -> Iterator[BillLine]:
    """Read a bill: comments begin with #, the first other line names the columns, and tabs end the texts."""
    rows = csv.reader(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    names = [name.strip() for name in next(rows, [])]
    at = {name: names.index(name) for name in ("支付宝交易号", "商户订单号", "业务类型", "退款批次号/请求号")}
    paid = next((index for index, name in enumerate(names) if name.startswith("订单金额")), len(names))
    for row in rows:
        said = {name: row[index].strip() for name, index in at.items()}
        is_refund = said["业务类型"] == "退款"
        amount = parse_yuan(row[paid].strip().removeprefix("-"))
        yield BillLine(
            out_trade_no=said["商户订单号"],
            out_refund_no=said["退款批次号/请求号"] if is_refund else "",
            transaction_id=said["支付宝交易号"],
            amount=-amount if is_refund else amount,
        )
