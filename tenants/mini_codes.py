"""A mini-program's own code: a picture that WeChat draws, and that leads into the mini-program when it is scanned.

WeChat counts how often it is asked, and draws the same each time, so a picture is kept in the cache. Where the cache is
away WeChat is asked again.

Source: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/qrcode-link/qr-code/getUnlimitedQRCode.html
"""

from typing import Final

import orjson
import structlog
from django.core.cache import cache
from redis.exceptions import RedisError

from tenants.models import MiniProgram
from tenants.wechat import WeChatAwayError, WeChatClient, unavailable
from tenants.wechat_token import WeChatRefusedError, call_for_picture

logger = structlog.get_logger(__name__)

KEPT_SECONDS: Final = 7 * 24 * 60 * 60
_PATH: Final = "/wxa/getwxacodeunlimit"
# Where a client begins, which is handed the scene.
_PAGE: Final = "pages/chat/index"
_WIDTH: Final = 430  # dots


def picture_of(program: MiniProgram, client: WeChatClient, *, scene: str) -> bytes:
    """Return the picture, JPEG or PNG, of the code that hands `scene` to the mini-program.

    A scene has at most 32 letters, digits and a few signs. Raises ProductError UPSTREAM "wechat_unavailable".
    """
    kept = _kept(program.app_id, scene)
    if kept:
        return kept
    # A page need not be published yet: the code is good as soon as it is.
    question = {"scene": scene, "page": _PAGE, "check_path": False, "env_version": "release", "width": _WIDTH}
    try:
        answer = call_for_picture(program, client, _PATH, body=orjson.dumps(question))
    except (WeChatAwayError, WeChatRefusedError):
        raise unavailable() from None
    if not isinstance(answer, bytes):
        logger.error("wechat_code_refused", errcode=answer.get("errcode"), app_id=program.app_id)
        raise unavailable()
    try:
        cache.set(_key(program.app_id, scene), answer, timeout=KEPT_SECONDS)
    except RedisError as away:
        logger.warning("wechat_code_not_kept", fault=type(away).__name__)
    return answer


def _kept(app_id: str, scene: str) -> bytes:
    try:
        kept = cache.get(_key(app_id, scene))
    except RedisError as away:
        logger.warning("wechat_code_not_kept", fault=type(away).__name__)
        return b""
    return kept if isinstance(kept, bytes) else b""


def _key(app_id: str, scene: str) -> str:
    return f"wechat_code:{app_id}:{scene}"
