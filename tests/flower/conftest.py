from tests.serve.conftest import one_thread as one_thread
