//! The fields that the reader supports, and all names of each.
//!
//! Types and a table, no code. Names are those that receipts, invoices, train tickets and identity cards print, and
//! those that schemas use as keys, in English and Chinese; the most specific name of a field comes first, and no name
//! belongs to two fields.

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Address,
    Date,
    Time,
    Amount,
    Number,
    Phone,
    Email,
    Identifier,
    Sex,
}

/// The position of a value without a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unlabelled {
    /// None: the field is absent.
    Nowhere,
    /// The first text on the page that has the form.
    FirstOfItsKind,
    /// The heading of a receipt.
    Issuer,
    /// The lines under the heading of a receipt.
    IssuerAddress,
    /// The sum of a receipt.
    Total,
    Currency,
    Train,
    SeatNumber,
    SeatClass,
    DepartureStation,
    ArrivalStation,
    IdentityNumber,
}

/// One kind of field.
#[derive(Debug)]
pub(crate) struct Concept {
    /// Its names, most specific first; they are both keys and labels.
    pub(crate) names: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) unlabelled: Unlabelled,
}

const fn labelled(kind: Kind, names: &'static [&'static str]) -> Concept {
    Concept { names, kind, unlabelled: Unlabelled::Nowhere }
}

const fn found(kind: Kind, unlabelled: Unlabelled, names: &'static [&'static str]) -> Concept {
    Concept { names, kind, unlabelled }
}

/// Every supported field.
pub(crate) static CONCEPTS: [Concept; 43] = [
    found(
        Kind::Text,
        Unlabelled::Issuer,
        &[
            "seller name",
            "seller",
            "merchant name",
            "merchant",
            "vendor name",
            "vendor",
            "supplier name",
            "supplier",
            "company name",
            "company",
            "store name",
            "store",
            "shop name",
            "shop",
            "issuer",
            "销售方名称",
            "销售方",
            "商户名称",
            "商家名称",
            "公司名称",
            "公司",
            "店名",
            "收款单位",
        ],
    ),
    labelled(
        Kind::Text,
        &[
            "bill to",
            "buyer name",
            "buyer",
            "customer name",
            "customer",
            "client name",
            "client",
            "购买方名称",
            "购买方",
            "客户名称",
            "客户",
        ],
    ),
    found(
        Kind::Address,
        Unlabelled::IssuerAddress,
        &[
            "address",
            "company address",
            "seller address",
            "merchant address",
            "store address",
            "vendor address",
            "supplier address",
            "地址",
            "住址",
            "销售方地址",
        ],
    ),
    found(
        Kind::Date,
        Unlabelled::FirstOfItsKind,
        &[
            "invoice date",
            "receipt date",
            "transaction date",
            "bill date",
            "issue date",
            "date of issue",
            "purchase date",
            "order date",
            "travel date",
            "departure date",
            "date",
            "dated",
            "开票日期",
            "开具日期",
            "交易日期",
            "乘车日期",
            "日期",
        ],
    ),
    labelled(Kind::Date, &["due date", "payment due date", "payment due", "到期日"]),
    labelled(
        Kind::Date,
        &["date of birth", "birth date", "birthday", "dob", "birth", "出生日期", "出生"],
    ),
    labelled(
        Kind::Date,
        &[
            "date of expiry",
            "expiry date",
            "expiration date",
            "expires",
            "valid until",
            "有效期至",
            "有效期限",
        ],
    ),
    found(
        Kind::Time,
        Unlabelled::FirstOfItsKind,
        &["transaction time", "departure time", "time", "开车时间", "发车时间", "时间"],
    ),
    found(
        Kind::Amount,
        Unlabelled::Total,
        &[
            "total",
            "total amount",
            "grand total",
            "amount due",
            "total due",
            "balance due",
            "amount payable",
            "total payable",
            "net total",
            "nett total",
            "invoice total",
            "价税合计",
            "总金额",
            "总计",
            "合计",
            "应付金额",
            "实付金额",
        ],
    ),
    labelled(
        Kind::Amount,
        &[
            "subtotal",
            "sub total",
            "amount before tax",
            "net amount",
            "total excl gst",
            "小计",
            "合计金额",
            "不含税金额",
        ],
    ),
    labelled(
        Kind::Amount,
        &[
            "tax amount",
            "total tax",
            "gst amount",
            "vat amount",
            "total gst",
            "sales tax",
            "service tax",
            "gst",
            "vat",
            "tax",
            "合计税额",
            "税额",
        ],
    ),
    labelled(Kind::Amount, &["discount", "discount amount", "total discount", "折扣", "优惠"]),
    labelled(Kind::Amount, &["rounding", "rounding adj", "rounding adjustment", "round adj"]),
    labelled(Kind::Amount, &["change", "change due", "找零"]),
    labelled(
        Kind::Amount,
        &["cash", "amount paid", "paid", "tendered", "cash tendered", "payment", "实收"],
    ),
    labelled(Kind::Amount, &["service charge", "tip", "服务费"]),
    labelled(Kind::Amount, &["shipping", "delivery fee", "freight", "运费"]),
    found(Kind::Text, Unlabelled::Currency, &["currency", "currency code", "币种", "货币"]),
    labelled(
        Kind::Identifier,
        &[
            "invoice number",
            "invoice no",
            "invoice id",
            "tax invoice no",
            "inv no",
            "receipt number",
            "receipt no",
            "bill number",
            "bill no",
            "document no",
            "doc no",
            "receipt",
            "invoice",
            "发票号码",
            "票据号码",
            "单据号",
        ],
    ),
    labelled(Kind::Identifier, &["invoice code", "发票代码"]),
    labelled(
        Kind::Identifier,
        &["order number", "order no", "order id", "purchase order", "po number", "po no", "订单号"],
    ),
    labelled(Kind::Identifier, &["ticket number", "ticket no", "票号"]),
    labelled(
        Kind::Identifier,
        &[
            "tax id",
            "gst id",
            "gst no",
            "gst reg no",
            "gst number",
            "vat number",
            "vat no",
            "tax number",
            "纳税人识别号",
            "统一社会信用代码",
        ],
    ),
    labelled(
        Kind::Identifier,
        &["registration number", "reg no", "co reg no", "company no", "registration no"],
    ),
    labelled(
        Kind::Phone,
        &[
            "phone",
            "phone number",
            "telephone",
            "telephone number",
            "tel",
            "tel no",
            "mobile",
            "contact number",
            "contact no",
            "联系电话",
            "电话",
            "手机",
        ],
    ),
    labelled(Kind::Phone, &["fax", "fax number", "fax no", "传真"]),
    found(Kind::Email, Unlabelled::FirstOfItsKind, &["email", "e mail", "email address", "邮箱"]),
    labelled(Kind::Text, &["cashier", "served by", "salesperson", "收银员", "开票人"]),
    labelled(Kind::Text, &["payment method", "payment type", "paid by", "支付方式"]),
    found(Kind::Identifier, Unlabelled::Train, &["train number", "train no", "train", "车次"]),
    found(
        Kind::Text,
        Unlabelled::DepartureStation,
        &[
            "departure station",
            "from station",
            "station from",
            "origin",
            "from",
            "出发站",
            "始发站",
            "起点",
        ],
    ),
    found(
        Kind::Text,
        Unlabelled::ArrivalStation,
        &[
            "arrival station",
            "to station",
            "station to",
            "destination",
            "to",
            "到达站",
            "终点站",
            "终点",
        ],
    ),
    found(
        Kind::Identifier,
        Unlabelled::SeatNumber,
        &["seat number", "seat no", "seat", "座位号", "座位", "席位号"],
    ),
    found(
        Kind::Text,
        Unlabelled::SeatClass,
        &["seat class", "seat type", "class", "席别", "座位类型"],
    ),
    found(Kind::Amount, Unlabelled::FirstOfItsKind, &["fare", "ticket price", "票价"]),
    labelled(Kind::Text, &["passenger name", "passenger", "乘客姓名", "旅客姓名"]),
    labelled(Kind::Text, &["full name", "name", "holder name", "姓名", "名称"]),
    labelled(Kind::Text, &["surname", "last name", "family name", "姓"]),
    labelled(Kind::Text, &["given names", "given name", "first name", "名"]),
    labelled(Kind::Sex, &["sex", "gender", "性别"]),
    labelled(Kind::Text, &["nationality", "国籍"]),
    labelled(Kind::Text, &["ethnicity", "ethnic group", "nation", "民族"]),
    found(
        Kind::Identifier,
        Unlabelled::IdentityNumber,
        &[
            "id number",
            "id no",
            "identity number",
            "identity card number",
            "identity no",
            "document number",
            "passport number",
            "passport no",
            "公民身份号码",
            "身份证号码",
            "身份证号",
        ],
    ),
];
