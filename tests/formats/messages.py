"""Generated Protobuf classes, made as protoc makes them: from descriptors."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

POOL = descriptor_pool.DescriptorPool()
_STRING, _LONG, _DOUBLE, _MESSAGE, _ENUM = 9, 3, 1, 11, 14


def _field(
    name: str, number: int, kind: int, type_name: str = "", *, label: int = 1
) -> descriptor_pb2.FieldDescriptorProto:
    field = descriptor_pb2.FieldDescriptorProto(name=name, number=number, label=label)
    field.type = kind
    if type_name:
        field.type_name = type_name
    return field


def _file(name: str, **parts: Any) -> Any:
    proto = descriptor_pb2.FileDescriptorProto(name=name, package="shop", syntax="proto3", **parts)
    POOL.Add(proto)
    return POOL.FindFileByName(name)


def _map_entry() -> descriptor_pb2.DescriptorProto:
    return descriptor_pb2.DescriptorProto(
        name="TagsEntry",
        field=[_field("key", 1, _STRING), _field("value", 2, _LONG)],
        options=descriptor_pb2.MessageOptions(map_entry=True),
    )


POOL.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
_file(
    "shop/money.proto",
    message_type=[descriptor_pb2.DescriptorProto(name="Money", field=[_field("cents", 1, _LONG)])],
)
_file(
    "shop/order.proto",
    dependency=["shop/money.proto", "google/protobuf/timestamp.proto"],
    enum_type=[
        descriptor_pb2.EnumDescriptorProto(
            name="Color",
            value=[
                descriptor_pb2.EnumValueDescriptorProto(name="RED", number=0),
                descriptor_pb2.EnumValueDescriptorProto(name="BLUE", number=1),
            ],
        )
    ],
    message_type=[
        descriptor_pb2.DescriptorProto(
            name="Order",
            field=[
                _field("id", 1, _LONG),
                _field("customer", 2, _STRING),
                _field("total", 3, _MESSAGE, ".shop.Money"),
                _field("at", 4, _MESSAGE, ".google.protobuf.Timestamp"),
                _field("tags", 5, _MESSAGE, ".shop.Order.TagsEntry", label=3),
                _field("color", 6, _ENUM, ".shop.Color"),
                _field("weight", 7, _DOUBLE),
            ],
            nested_type=[_map_entry()],
        ),
        descriptor_pb2.DescriptorProto(
            name="Customer",
            field=[_field("name", 1, _STRING)],
            nested_type=[
                descriptor_pb2.DescriptorProto(name="Phone", field=[_field("number", 1, _STRING)]),
                descriptor_pb2.DescriptorProto(name="Address", field=[_field("city", 1, _STRING)]),
            ],
        ),
    ],
)


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


Money = _class("shop.Money")
Order = _class("shop.Order")
Customer = _class("shop.Customer")
Address = _class("shop.Customer.Address")
