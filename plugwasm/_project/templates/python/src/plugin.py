import extism


def greet(name: str) -> str:
    if not name:
        raise extism.Error("no name was given", 2)
    return f"{extism.Config.get_str('greeting') or 'Hello'}, {name}!"
