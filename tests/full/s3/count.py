"""Stands between clients and a registry and counts the bytes that pass: `count.py PORT-OF-REGISTRY FILE`.

Prints its own port; FILE always holds the sum of both directions.
"""
import asyncio
import pathlib
import sys

target, file = int(sys.argv[1]), pathlib.Path(sys.argv[2])
total = 0


async def pass_on(reader, writer):
    global total
    try:
        while part := await reader.read(1 << 16):
            total += len(part)
            file.write_text(str(total))
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def meet(reader, writer):
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
    await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))


async def main():
    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    file.write_text("0")
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
