"""What the operator wants of a host: the `provision_` variables of the inventory, typed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from provisioner.model.tunnel import Tunnel


class Policy(BaseModel):
    """How careful to be; key `provision_policy`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reboot: Literal["allow", "never"] = "allow"
    past_end_of_life: Literal["upgrade", "keep", "refuse"] = Field(
        default="upgrade",
        description="what to do with a driver branch past its end of life when a newer one fits",
    )
    forbid_branches: tuple[str, ...] = ()
    rollback: Literal["auto", "never"] = Field(
        default="auto", description="whether a change of the stack is taken back when the host does not pass after it"
    )
    history: int = Field(default=3, ge=1, le=50, description="how many of the last changes a host keeps")
    history_mib: int = Field(default=4096, ge=256, description="MiB that a host keeps of them in all")


class Intent(BaseModel):
    """The request for one host. Every field is a variable with the prefix `provision_`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: tuple[str, ...] = Field(default=(), description="ids of matrix/networks, such as akash")
    driver: str | None = Field(
        default=None, description='specifier for the driver, such as ">=535.261.03,<536" or "535"'
    )
    modules: Literal["auto", "open", "proprietary"] = "auto"
    cuda: str | None = Field(default=None, description="lowest CUDA level that must be offered, such as 12.2")
    runtime: str = Field(default="auto", description="id of matrix/runtimes; auto takes what the networks allow")
    toolkit: str = Field(
        default="auto",
        description='auto takes the container toolkit when offered, "none", or a specifier such as ">=1.19.1"',
    )
    cdi: Literal["auto", "present", "absent"] = "auto"
    tunnel: Tunnel = Tunnel()
    policy: Policy = Policy()
