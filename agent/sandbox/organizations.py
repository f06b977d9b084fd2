"""Organizations, memberships, invitations."""

from __future__ import annotations

import secrets

from starlette.responses import Response

from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, forbidden, missing, reply
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import is_admin, rank
from agent.sandbox.records import JSON, Membership, Organization, now
from agent.sandbox.tasks import remove_files, remove_task

ROLES = ("worker", "supervisor", "maintainer")


def view(call: Call, organization: Organization) -> JSON:
    """An organization as the API tells it."""
    names = ("id", "slug", "name", "description", "created_date", "updated_date", "contact")
    owner = brief(call, organization.owner_id)
    return {**{name: getattr(organization, name) for name in names}, "owner": owner}


def _the_organization(call: Call, least: int = 0) -> Organization:
    organization = call.state.organizations.get(call.id())
    if organization is None:
        raise missing("Organization")
    if rank(call, organization.id) < least and not is_admin(call):
        raise forbidden()
    return organization


def list_organizations(call: Call) -> Response:
    """GET /api/organizations."""
    seen = [o for o in call.state.organizations.all() if is_admin(call) or rank(call, o.id) >= 0]
    fields = plain("id", "slug", "name")
    fields["owner"] = lambda o: call.state.users.rows[o.owner_id].username
    return listed(call, seen, fields, lambda o: view(call, o), search=("name", "owner", "slug"))


def create_organization(call: Call) -> Response:
    """POST /api/organizations."""
    sent, state = call.object(), call.state
    slug = str(sent.get("slug") or "")
    if not slug or len(slug) > 16 or not slug.replace("-", "").replace("_", "").isalnum():
        raise Refusal(400, {"slug": ["Enter a valid “slug” of at most 16 characters."]})
    with state.store.change():
        if state.organizations.first(slug=slug):
            raise Refusal(400, {"slug": ["organization with this slug already exists."]})
        texts = {"name": sent.get("name") or slug, "description": sent.get("description") or ""}
        organization = state.organizations.add(
            slug=slug, owner_id=call.user.id, contact=sent.get("contact") or {}, **texts
        )
        state.memberships.add(organization_id=organization.id, user_id=call.user.id, role="owner")
    return reply(view(call, organization), 201)


def get_organization(call: Call) -> Response:
    """GET /api/organizations/{id}."""
    return reply(view(call, _the_organization(call)))


def patch_organization(call: Call) -> Response:
    """PATCH /api/organizations/{id}."""
    organization, sent = _the_organization(call, least=2), call.object()
    with call.state.store.change():
        for name in sent.keys() & {"name", "description", "contact"}:
            setattr(organization, name, sent[name])
        organization.updated_date = now()
        call.state.organizations.save(organization)
    return reply(view(call, organization))


def delete_organization(call: Call) -> Response:
    """DELETE /api/organizations/{id}: with its tasks and projects."""
    organization, state = _the_organization(call, least=3), call.state
    mine = {"organization_id": organization.id}
    tasks = state.tasks.where(**mine)
    with state.store.change():
        for task in tasks:
            remove_task(state, task)
        for project in state.projects.where(**mine):
            for label in state.labels.where(project_id=project.id):
                state.labels.remove(label.id)
            state.projects.remove(project.id)
        for member in state.memberships.where(**mine):
            state.memberships.remove(member.id)
        for hook in state.webhooks.where(**mine):
            state.webhooks.remove(hook.id)
        for function in state.functions.where(**mine):
            state.functions.remove(function.id)
        state.organizations.remove(organization.id)
    for task in tasks:
        remove_files(state, task)
    state.ring()
    return Response(status_code=204)


def _invitation(call: Call, member: Membership) -> JSON:
    organization = call.state.organizations.rows[member.organization_id]
    return {
        "key": member.key,
        "created_date": member.created_date,
        "owner": brief(call, member.inviter_id),
        "role": member.role,
        "user": brief(call, member.user_id),
        "organization": organization.id,
        "expired": None,
        "accepted": True,
        "organization_info": {"id": organization.id, "slug": organization.slug},
    }


def create_invitation(call: Call) -> Response:
    """POST /api/invitations: a known user joins at once."""
    sent, state = call.object(), call.state
    if call.organization is None or (rank(call, call.organization.id) < 2 and not is_admin(call)):
        raise forbidden()
    if sent.get("role") not in ROLES:
        raise Refusal(400, {"role": [f'"{sent.get("role")}" is not a valid choice.']})
    user = state.users.first(email=str(sent.get("email", "")))
    if user is None:
        raise Refusal(400, {"email": ["The sandbox invites its own users only."]})
    with state.store.change():
        if state.memberships.first(organization_id=call.organization.id, user_id=user.id):
            raise Refusal(400, ["The user is a member of the organization already."])
        member = state.memberships.add(
            organization_id=call.organization.id,
            user_id=user.id,
            role=sent["role"],
            key=secrets.token_urlsafe(48)[:64],
            inviter_id=call.user.id,
        )
    return reply(_invitation(call, member), 201)


def list_invitations(call: Call) -> Response:
    """GET /api/invitations: those that the caller sent or got."""
    seen = [m for m in call.state.memberships.all() if m.key and call.user.id in (m.user_id, m.inviter_id)]
    if call.organization is not None:
        seen = [m for m in seen if m.organization_id == call.organization.id]
    fields = {"created_date": lambda m: m.created_date, "role": lambda m: m.role}
    return listed(call, seen, fields, lambda m: _invitation(call, m), sort="-created_date")


def _member_view(call: Call, member: Membership) -> JSON:
    return {
        "id": member.id,
        "user": brief(call, member.user_id),
        "organization": member.organization_id,
        "is_active": True,
        "joined_date": member.created_date,
        "role": member.role,
        "invitation": member.key or None,
        "last_activity_date": None,
    }


def list_memberships(call: Call) -> Response:
    """GET /api/memberships."""
    seen = [m for m in call.state.memberships.all() if is_admin(call) or rank(call, m.organization_id) >= 0]
    if call.organization is not None:
        seen = [m for m in seen if m.organization_id == call.organization.id]
    fields = {
        "id": lambda m: m.id,
        "role": lambda m: m.role,
        "user": lambda m: call.state.users.rows[m.user_id].username,
    }
    return listed(call, seen, fields, lambda m: _member_view(call, m), search=("user", "role"))


def _the_member(call: Call) -> Membership:
    member = call.state.memberships.get(call.id())
    if member is None:
        raise missing("Membership")
    own = member.user_id == call.user.id and call.request.method == "DELETE"
    if not (own or is_admin(call) or rank(call, member.organization_id) >= 2) or member.role == "owner":
        raise forbidden()
    return member


def patch_membership(call: Call) -> Response:
    """PATCH /api/memberships/{id}: another role."""
    member, role = _the_member(call), call.object().get("role")
    if role not in ROLES:
        raise Refusal(400, {"role": [f'"{role}" is not a valid choice.']})
    member.role = role
    call.state.memberships.save(member)
    return reply(_member_view(call, member))


def delete_membership(call: Call) -> Response:
    """DELETE /api/memberships/{id}: a member leaves; jobs that he had are nobody's."""
    member, state = _the_member(call), call.state
    with state.store.change():
        ours = {task.id for task in state.tasks.where(organization_id=member.organization_id)}
        for job in state.jobs.where(assignee_id=member.user_id):
            if job.task_id in ours:
                job.assignee_id = None
                state.jobs.save(job)
        state.memberships.remove(member.id)
    return Response(status_code=204)
