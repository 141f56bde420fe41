# SPDX-License-Identifier: MIT OR Apache-2.0
# What xl's own library reads in a configuration: python3 -c SCRIPT FILE KEY...
import ctypes as c, glob, json, sys


def library(name):
    return c.CDLL(sorted(glob.glob(f"/usr/lib/*/lib{name}.so.*"))[-1])


util, light, libc = library("xlutil"), library("xenlight"), c.CDLL(None)
libc.fdopen.restype = util.xlu_cfg_init.restype = c.c_void_p
util.xlu_cfg_get_listitem.restype = c.c_char_p
config = c.c_void_p(util.xlu_cfg_init(c.c_void_p(libc.fdopen(2, b"w")), b"document"))
if util.xlu_cfg_readfile(config, sys.argv[1].encode()):
    sys.exit("it is not read")
found = {}
for key in sys.argv[2:]:
    text, number, items, length = c.c_char_p(), c.c_long(), c.c_void_p(), c.c_int()
    name = key.encode()
    if not util.xlu_cfg_get_long(config, name, c.byref(number), 1):
        found[key] = number.value
    elif not util.xlu_cfg_get_list(config, name, c.byref(items), c.byref(length), 1):
        entries = range(length.value)
        found[key] = [util.xlu_cfg_get_listitem(items, n).decode() for n in entries]
    elif not util.xlu_cfg_get_string(config, name, c.byref(text), 1):
        found[key] = text.value.decode()
found["disks"] = []
for words in found.get("disk", []):
    # More than the structure has, whose second and third pointer are the file and the device.
    disk = c.create_string_buffer(4096)
    light.libxl_device_disk_init(disk)
    if util.xlu_disk_parse(config, 1, (c.c_char_p * 1)(words.encode()), disk):
        sys.exit("not a disk: " + words)
    pointers = c.cast(disk, c.POINTER(c.c_char_p))
    found["disks"].append([pointers[2].decode(), pointers[3].decode()])
print(json.dumps(found))
