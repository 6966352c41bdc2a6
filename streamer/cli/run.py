"""One run of a verb that lasts: settings, log, signals, expected errors, exit code.

Knows how a run begins and ends. Knows no part of what runs.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..aio.shutdown import leaves
from ..config.loader import Config, ConfigError
from ..core.errors import TamulagError
from ..features.picture_limits import limit_pictures
from ..service.process_limits import prepare_process
from .log_setup import Log


def run(
    program: str,
    load: Callable[[], Config],
    main: Callable[[Config, Log, ExitStack], None],
    *,
    refuses: Callable[[Config], str | None] = lambda config: None,
    threads: Callable[[Config], int | None] = lambda config: None,
    expected: tuple[type[Exception], ...] = (TamulagError,),
) -> int:
    """Run to the end and return the exit code: 0 done, 1 failed, 2 wrong use.

    Args:
        program: Name before what is printed on standard error.
        load: Returns the settings.
        main: Builds and runs; what it puts on the stack is closed at the end.
        refuses: Returns why settings are wrong use; None: they are not.
        threads: Returns the threads of torch; None: left as they are.
        expected: Errors that are reported without a traceback.
    """
    try:
        config = load()
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if str(error).startswith("command line:") else 1
    if why := refuses(config):
        print(f"{program}: {why}", file=sys.stderr)
        return 2
    limit_pictures()
    prepare_process()
    if number := threads(config):
        torch.set_num_threads(number)
    code = 0
    with Log(config.log.format, config.log.level, program) as log:
        try:
            with ExitStack() as until:
                main(config, log, until)
        except* BrokenPipeError:
            pass  # The program that read our lines has ended; that is how a pipe stops us.
        except* expected as group:
            for found in leaves(group):
                log.report(found)
            code = 1
    return code


@contextmanager
def loading() -> Iterator[None]:
    """Load without garbage collection: there is no garbage, and all that is loaded stays."""
    gc.disable()
    try:
        yield
    finally:
        # Else a collection in the run would look through every object of torch, for a tenth of a
        # second in which no score goes out.
        gc.freeze()
        gc.enable()
