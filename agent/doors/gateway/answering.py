"""From a body to a reply, by the model's kind. It runs in a thread of the call's own."""

from __future__ import annotations

from dataclasses import dataclass

from agent.activity import Request
from agent.contract import PromptNeeds
from agent.doors import Shared
from agent.doors.gateway.ahead import Ahead
from agent.doors.gateway.call import Call
from agent.doors.gateway.detector import Detecting, asked_threshold, detect
from agent.doors.gateway.interactor import asked_prompts, write_masks
from agent.doors.gateway.listing import Menu
from agent.doors.gateway.payload import Payload
from agent.doors.gateway.reid import Pair, match_pair
from agent.doors.gateway.tracker import Tracking
from agent.interaction import interact
from agent.pool.pool import HostedModel


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers calls. What is wrong with a call is found before it counts as a request."""

    shared: Shared
    menu: Menu
    ahead: Ahead

    def answer(self, model: str, body: bytes, call: Call) -> bytes:
        """The reply for a call's body. A SidecarError says why there is none."""
        self.menu.settings(model)
        payload = Payload.parse(body)
        with self.shared.pool.use(model, call.check) as hosted:
            call.check()
            match hosted.loaded.kind:
                case "detector":
                    return self._detect(hosted, payload, call)
                case "interactor":
                    return self._interact(hosted, payload, call)
                case "tracker":
                    return self._track(hosted, payload, call)
            return self._match(hosted, payload, call)

    def _begin(self, call: Call, kind: str, hosted: HostedModel, what: str = "a picture") -> Request:
        call.counts = True
        return self.shared.activity.begin("gateway", kind, hosted.id, what, quiet=True)

    def _detect(self, hosted: HostedModel, payload: Payload, call: Call) -> bytes:
        naming = self.menu.naming(hosted.settings, hosted.loaded.labels)
        detecting = Detecting(hosted, naming, asked_threshold(payload))
        picture = payload.picture(call)
        if (reply := self.ahead.find(detecting, picture, call)) is not None:
            with self._begin(call, "detect", hosted, "a picture that was read ahead"):
                return reply
        frame = picture.frame
        self.ahead.look(detecting, picture)
        with self._begin(call, "detect", hosted) as request:
            return detect(detecting, frame, picture.digest, call, request)

    def _interact(self, hosted: HostedModel, payload: Payload, call: Call) -> bytes:
        prompts = asked_prompts(payload, getattr(hosted.loaded.model, "needs", PromptNeeds()))
        picture = payload.picture(call)
        frame = picture.frame
        with self._begin(call, "interact", hosted) as request:
            found = interact(hosted, self.shared.embeddings, frame, prompts, digest=picture.digest)
            return write_masks(call.wait(found, request), (frame.width, frame.height))

    def _track(self, hosted: HostedModel, payload: Payload, call: Call) -> bytes:
        picture = payload.picture(call)
        tracking = Tracking(hosted, self.shared.track_states, picture.frame, picture.digest)
        ask = tracking.read(payload)
        with self._begin(call, "track", hosted) as request:
            return ask(call, request)

    def _match(self, hosted: HostedModel, payload: Payload, call: Call) -> bytes:
        pair = Pair.read(payload, call)
        with self._begin(call, "reid", hosted, "two pictures") as request:
            return match_pair(pair, hosted, self.shared.embeddings, call, request)
