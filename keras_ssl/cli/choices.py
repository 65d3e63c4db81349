"""What `--method`, `--method_args` and `--views` name: read without a framework, looked up once Keras is there."""

import ast
import importlib
import importlib.util
import inspect
import os
import sys

from keras_ssl import names
from keras_ssl.cli.flags import method_class, nearest

# Arguments of a method that have a flag of their own, or none.
_OWN_FLAGS = {
    "backbone": "--backbone sets it",
    "views": "--views sets it",
    "seed": "--seed sets it",
    "teacher": "--teacher sets it",
    "dtype": "--mixed_precision sets it",
    "name": "it has no meaning here",
}


class Dotted:
    """A value such as `keras_ssl.heads.mlp([512, 128])`: what is named is imported when it is made.

    Args:
        node: of `ast`, a dotted name, or a call of one with plain values.
    """

    def __init__(self, node):
        self.text = ast.unparse(node)
        called = isinstance(node, ast.Call)
        self.path = ast.unparse(node.func if called else node)
        self.positional = [ast.literal_eval(one) for one in node.args] if called else None
        self.named = {one.arg: ast.literal_eval(one.value) for one in node.keywords} if called else None

    def make(self):
        module, _, name = self.path.rpartition(".")
        look_here()
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"there is no {self.path}: {error}") from None
        return found if self.named is None else found(*self.positional, **self.named)


def read_arguments(text, flag):
    """`(positional, named)` of `0.5,name=value,…`: numbers, True, False, None, words, lists, or `Dotted`.

    Raises:
        ValueError: for text of another form.
    """
    way = f"{flag}={text}: write name=value with commas between, such as temperature=0.2,one_pass=False"
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if not isinstance(call, ast.Call) or any(one.arg is None for one in call.keywords):
            raise ValueError
        named = {}
        for one in call.keywords:
            if one.arg in named:
                raise ValueError
            named[one.arg] = _value(one.value)
        return [_value(one) for one in call.args], named
    except (SyntaxError, ValueError):
        raise ValueError(f"{way}.") from None


def _value(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return Dotted(node)
    return ast.literal_eval(node)


# The method.


def method_label(name):
    """What a method is called in the names of folders: `simclr`, and `mine` for `package.module:Mine`."""
    return name.rpartition(":")[2].lower()


def check_method(name):
    """Refuses a name that is no method of the package, and no `package.module:Class` that could be one."""
    if ":" not in name:
        return method_class(name)
    module, _, found = name.partition(":")
    parts = [*module.split("."), found]
    if not all(part.isidentifier() for part in parts):
        raise ValueError(f"--method={name}: write package.module:Class, such as my_methods:Mine.")
    look_here()
    if importlib.util.find_spec(parts[0]) is None:
        raise ValueError(
            f"--method={name}: there is no module {parts[0]} here. Run the command in the folder that holds "
            f"{parts[0]}.py, or set PYTHONPATH to it."
        )
    return name


def own_method(name):
    """The class that `package.module:Class` names."""
    from keras_ssl.model import SelfSupervisedModel

    module, _, found = name.partition(":")
    look_here()
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"--method={name}: {module} can't be imported: {error}.") from None
    classes = {
        key: value
        for key, value in vars(loaded).items()
        if inspect.isclass(value) and issubclass(value, SelfSupervisedModel) and value is not SelfSupervisedModel
    }
    if found not in classes:
        hint = nearest(found, classes) if classes else "A method is a subclass of keras_ssl.SelfSupervisedModel."
        raise ValueError(f'--method={name}: there is no method "{found}" in {module}. {hint}')
    return classes[found]


def look_here():
    """Makes modules of the working directory importable for good: a model that is loaded later needs them."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


# Its arguments.


def parameters(method):
    """The arguments that `--method_args` can set: a dict of name to `inspect.Parameter`."""
    from keras_ssl.model import SelfSupervisedModel

    found = dict(inspect.signature(method.__init__).parameters)
    if any(one.kind is one.VAR_KEYWORD for one in found.values()):
        found = {**found, **inspect.signature(SelfSupervisedModel.__init__).parameters, **found}  # its own first
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {key: one for key, one in found.items() if key not in ("self", *_OWN_FLAGS) and one.kind not in kinds}


def check_method_args(text):
    """Refuses what is not `name=value,…`; a dict, empty for None. Which names there are, the method knows."""
    if not text:
        return {}
    positional, named = read_arguments(text, "--method_args")
    if positional:
        raise ValueError(f"--method_args={text}: write name=value with commas between, such as temperature=0.2.")
    return named


def method_arguments(text, method):
    """The arguments of a method that `--method_args` gives, checked against its signature: a dict."""
    named = check_method_args(text)
    known = parameters(method)
    for name, value in named.items():
        if name in _OWN_FLAGS:
            raise ValueError(f"--method_args={name}=…: {_OWN_FLAGS[name]}.")
        if name not in known:
            raise ValueError(f'--method_args: {method.__name__} has no argument "{name}". {nearest(name, known)}')
        _check_kind(f"--method_args={name}={shown(value)}", value, known[name].default)
    return named


def _check_kind(given, value, default):
    """Refuses a word in the place of a number, and so on, by the kind of the default."""
    if isinstance(value, Dotted) or value is None:
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{given}: it takes True or False; the default is {default}.")
    elif isinstance(default, (int, float)) and (isinstance(value, (bool, str)) or not isinstance(value, (int, float))):
        raise ValueError(f"{given}: it takes a number; the default is {default}.")


def shown(value):
    return value.text if isinstance(value, Dotted) else str(value)


# The views.


def check_views(text):
    """Refuses a policy that there is not; returns `(name, arguments)`."""
    positional, named = read_arguments(text, "--views")
    if len(positional) != 1 or not isinstance(positional[0], str):
        raise ValueError(f"--views={text}: write a policy and its arguments, such as simclr,strength=0.5.")
    name = positional[0]
    if name not in names.POLICIES:
        raise ValueError(f'--views: there is no policy "{name}". {nearest(name, names.POLICIES)}')
    return name, named


def views(text, shape=None):
    """`(text, function that makes them)` of the policy that `--views` names, for images of `(height, width, channels)`.

    Args:
        shape: None to check the arguments alone.
    """
    from keras_ssl import augment

    name, named = check_views(text)
    policy = getattr(augment, name)
    signature = inspect.signature(policy).parameters
    given = {"size", "global_size", "channels", "value_range"}  # what the images say
    known = [key for key in signature if key not in given]
    for key, value in named.items():
        if key not in known:
            has = f"Known: {', '.join(known)}." if known else "It has none."
            hint = nearest(key, known) if known else has
            raise ValueError(f'--views: the policy {name} has no argument "{key}". {hint}')
        _check_kind(f"--views={name},{key}={shown(value)}", value, signature[key].default)
    if shape is None:
        return None
    size = {"size": tuple(shape[:2]), "global_size": tuple(shape[:2]), "channels": shape[2]}
    options = {**{key: value for key, value in size.items() if key in signature}, **named}

    def make():
        try:
            return policy(**options)
        except (ValueError, TypeError) as error:
            raise ValueError(f"--views={text}: {error}") from None

    return text, make


def of_several_sizes(make, shape):
    """Whether the views have several sizes, which only a backbone of open size takes."""
    shapes = make().compute_output_shape((None, *shape))
    return len({tuple(one[1:3]) for one in shapes}) > 1
