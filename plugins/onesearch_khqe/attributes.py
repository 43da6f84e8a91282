"""The 18 attribute types, and a guess of the type of a word that no structured attribute names."""

from __future__ import annotations

import re

from onesearch.data.schemas import ATTRIBUTE_TYPES as ATTRIBUTES

__all__ = ["ATTRIBUTES", "NUMBER", "guess_attribute"]

NUMBER = {name: number for number, name in enumerate(ATTRIBUTES)}

# Closed classes only: what belongs to them is much the same in every shop. Open classes (entities, brands,
# models) are told from where a word stands, see :func:`guess_attribute`.
_CLOSED = {
    "Color": (
        "black white red blue green yellow brown gray grey beige pink purple orange silver gold ivory "
        "navy bronze nickel chrome almond espresso cherry tan teal turquoise khaki cream charcoal 黑色 "
        "白色 红色 蓝色 绿色 黄色 灰色 粉色 紫色 米色 棕色 金色 银色 咖色 卡其色 橙色"
    ),
    "Material": (
        "wood wooden steel stainless aluminum aluminium brass copper vinyl plastic leather cotton wool "
        "silk linen denim polyester nylon glass ceramic porcelain granite marble bamboo oak pine cedar "
        "pvc iron rubber concrete velvet 纯棉 真丝 羊毛 羊绒 牛皮 真皮 棉麻 亚麻 不锈钢 实木 陶瓷 玻璃 "
        "塑料 牛仔 貂皮 丝绒 珍珠 纯银"
    ),
    "Audience": (
        "men mens women womens kids boys girls baby toddler adult unisex ladies children pet dog cat "
        "男士 女士 男款 女款 男女 儿童 女童 男童 宝宝 婴儿 孕妇 学生 老人 中老年 情侣 女装 男装"
    ),
    "Season": (
        "summer winter spring autumn fall christmas halloween 夏季 冬季 春季 秋季 春秋 秋冬 夏天 冬天 "
        "四季 春夏"
    ),
    "Pattern": (
        "striped stripe solid floral plaid dotted dot camouflage checked 条纹 碎花 格子 印花 波点 纯色 迷彩"
    ),
    "Location": (
        "kitchen bathroom bedroom garage patio garden outdoor indoor wall ceiling floor window door 厨房 "
        "卧室 客厅 户外 室内 浴室 床边 车载 办公室"
    ),
    "Scene": "party wedding office travel sports camping 婚礼 聚会 旅行 运动 通勤 居家 广场舞",
    "Style": (
        "modern vintage rustic classic contemporary casual traditional boho 法式 复古 韩版 简约 中式 "
        "欧美 时尚 日系 新中式 国风"
    ),
    "Function": (
        "waterproof fireproof insulated adjustable cordless rechargeable portable foldable energy saving "
        "防水 防滑 防晒 防尘 保暖 透气 显瘦 免洗 加绒 加厚 速干"
    ),
    "Marketing": "sale clearance new bestseller 福利 正品 新款 爆款 特价 包邮 官方 进口",
}
_TYPE_OF = {word: name for name, words in _CLOSED.items() for word in words.split()}
_UNIT = (
    r"(?:in|inch|inches|ft|feet|foot|mm|cm|m|yd|oz|lb|lbs|gal|gallon|qt|l|ml|kg|g|watt|watts|w|v|volt|amp|"
    r"amps|a|btu|psi|gauge|piece|pack|sq|hp|x|light|厘米|毫米|米|克|千克|斤|升|毫升|寸|码|件|只|支|片|包|瓶|盒|袋)"
)
_SPECIFICATION = re.compile(rf"\d+(?:[./]\d+)*\s*-?\s*{_UNIT}?(?:\s+{_UNIT})*")
_PRICE = re.compile(r"[$€£¥￥]\s*\d+(?:\.\d+)?|\d+(?:\.\d+)?\s*元")


def guess_attribute(text: str, last_in_query: float = 0.0, first_in_title: float = 0.0) -> str:
    """Guess the type of a mined word or phrase.

    Args:
        text: normalised surface form.
        last_in_query: share of its queries that end with it: in English (and Chinese) the head noun comes
            last.
        first_in_title: share of its titles that start with it: shops put the brand there.
    """
    if _PRICE.fullmatch(text):
        return "Price"
    if _SPECIFICATION.fullmatch(text):
        return "Specifications"
    for word in (text, *reversed(text.split())):
        if word in _TYPE_OF:
            return _TYPE_OF[word] if last_in_query < 0.8 else "Entity"
    compact = text.replace(" ", "").replace("-", "")
    if compact.isascii() and re.search(r"\d", compact) and re.search(r"[a-z]", compact):
        return "Model"
    if first_in_title >= 0.6 and last_in_query < 0.5:
        return "Brand"
    return "Entity" if last_in_query >= 0.4 else "Modifier"
