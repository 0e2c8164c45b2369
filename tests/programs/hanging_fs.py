"""A file system by FUSE that passes everything on to another folder: FOLDER MOUNTPOINT. While it is stopped, every call to it hangs.

Written to /dev/fuse by hand (include/uapi/linux/fuse.h), as much of it as the tools use.
"""

import ctypes
import errno
import os
import struct
import sys

FOLDER, MOUNT = sys.argv[1:3]
paths, numbers = {1: ""}, {"": 1}


def number(path):
    if path not in numbers:
        numbers[path] = max(paths) + 1
        paths[numbers[path]] = path
    return numbers[path]


def real(path):
    return os.path.join(FOLDER, path) if path else FOLDER


def attr(node, fd=None):
    s = os.stat(real(paths[node])) if fd is None else os.fstat(fd)
    times = (int(s.st_atime), int(s.st_mtime), int(s.st_ctime))
    parts = (s.st_atime_ns % 10**9, s.st_mtime_ns % 10**9, s.st_ctime_ns % 10**9)
    return struct.pack("=6Q10I", node, s.st_size, s.st_blocks, *times, *parts, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, 0, 4096, 0)


def entry(node):
    return struct.pack("=4Q2I", node, 1, 0, 0, 0, 0) + attr(node)


def child(node, name):
    return os.path.join(paths[node], name.split(b"\0")[0].decode())


def rename(node, new_dir, flags, names):
    old, new = (os.path.join(paths[n], part.decode()) for n, part in zip((node, new_dir), names.split(b"\0")))
    if flags & 1 and os.path.lexists(real(new)):
        raise OSError(errno.EEXIST, "")
    os.rename(real(old), real(new))
    moved = number(old)
    numbers.pop(new, None)
    del numbers[old]
    paths[moved], numbers[new] = new, moved
    return b""


def remove(node, name, by):
    path = child(node, name)
    by(real(path))
    numbers.pop(path, None)
    return b""


def set_attr(node, data):
    valid, _, fh, size, _, _, _, _, _, _, _, mode, _, uid, gid, _ = struct.unpack("=2I6Q8I", data[:88])
    path = real(paths[node])
    if valid & 1:
        os.chmod(path, mode & 0o7777)
    if valid & 6:
        os.chown(path, uid if valid & 2 else -1, gid if valid & 4 else -1)
    if valid & 8:
        os.ftruncate(fh, size) if valid & 64 else os.truncate(path, size)
    return struct.pack("=Q2I", 0, 0, 0) + attr(node)


def read_dir(node, offset, size):
    out = b""
    for i, name in enumerate([".", ".."] + sorted(os.listdir(real(paths[node])))):
        name = name.encode()
        one = struct.pack("=2Q2I", i + 100, i + 1, len(name), 0) + name
        one += b"\0" * (-len(one) % 8)
        if i >= offset and len(out) + len(one) <= size:
            out += one
    return out


def answer(op, node, data):
    if op == 26:  # INIT
        return struct.pack("=4I2H2I2H8I", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, *[0] * 8)
    if op == 1:  # LOOKUP
        path = child(node, data)
        os.lstat(real(path))
        return entry(number(path))
    if op == 3:  # GETATTR
        flags, _, fh = struct.unpack("=2IQ", data[:16])
        return struct.pack("=Q2I", 0, 0, 0) + attr(node, fh if flags & 1 else None)
    if op == 4:
        return set_attr(node, data)
    if op == 9:  # MKDIR
        path = child(node, data[8:])
        os.mkdir(real(path), struct.unpack("=I", data[:4])[0] & 0o7777)
        return entry(number(path))
    if op in (10, 11):  # UNLINK, RMDIR
        return remove(node, data, os.unlink if op == 10 else os.rmdir)
    if op == 12:  # RENAME
        return rename(node, struct.unpack("=Q", data[:8])[0], 0, data[8:])
    if op == 45:  # RENAME2
        new_dir, flags = struct.unpack("=QI", data[:12])
        return rename(node, new_dir, flags, data[16:])
    if op == 14:  # OPEN
        flags = struct.unpack("=I", data[:4])[0] & ~(os.O_CREAT | os.O_EXCL | os.O_APPEND)
        return struct.pack("=Q2I", os.open(real(paths[node]), flags), 0, 0)
    if op == 35:  # CREATE
        flags, mode = struct.unpack("=2I", data[:8])
        path = child(node, data[16:])
        fd = os.open(real(path), flags & ~os.O_APPEND, mode & 0o7777)
        return entry(number(path)) + struct.pack("=Q2I", fd, 0, 0)
    if op in (15, 28):  # READ, READDIR
        fh, offset, size = struct.unpack("=2QI", data[:20])
        return os.pread(fh, size, offset) if op == 15 else read_dir(node, offset, size)
    if op == 16:  # WRITE
        fh, offset, size = struct.unpack("=2QI", data[:20])
        return struct.pack("=2I", os.pwrite(fh, data[40 : 40 + size], offset), 0)
    if op == 17:  # STATFS
        s = os.statvfs(FOLDER)
        counts = (s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree)
        return struct.pack("=5Q4I24x", *counts, s.f_bsize, s.f_namemax, s.f_frsize, 0)
    if op == 18:  # RELEASE
        os.close(struct.unpack("=Q", data[:8])[0])
        return b""
    if op == 27:  # OPENDIR
        return struct.pack("=Q2I", 0, 0, 0)
    if op in (20, 25, 29, 30):  # FSYNC, FLUSH, RELEASEDIR, FSYNCDIR
        return b""
    raise OSError(errno.ENOSYS, "")


device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if ctypes.CDLL(None, use_errno=True).mount(b"fuse", MOUNT.encode(), b"fuse", 6, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print(os.getpid(), flush=True)
while True:
    try:
        request = os.read(device, 1 << 20)
    except OSError as error:
        if error.errno == errno.ENODEV:
            break
        continue
    _, op, unique, node = struct.unpack("=2I2Q", request[:24])
    if op in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET
        continue
    try:
        code, reply = 0, answer(op, node, request[40:])
    except OSError as error:
        code, reply = -(error.errno or errno.EIO), b""
    os.write(device, struct.pack("=IiQ", 16 + len(reply), code, unique) + reply)
